"""When the value of an alert was last known: a wait that nobody saw go by does not count."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE alert ADD COLUMN seen_at timestamptz")
