"""Rollup rows keep their histograms in line: a month's answer reads them all, and fetching them apart took longer."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE rollup SET (toast_tuple_target = 8160)")
