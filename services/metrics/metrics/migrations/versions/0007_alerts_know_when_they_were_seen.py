"""The time at which the value of an alert was last known. Time without a known value does not count as pending."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE alert ADD COLUMN seen_at timestamptz")
