"""Long logs are not compressed: that took half a millisecond of each decision on a log of a thousand admissions."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE admissions SET (toast_tuple_target = 8160)")
