"""What the webhook was last told of an alert, whichever replica comes to tell it; what fires now counts as told."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE alert ADD COLUMN told text")
    op.execute("UPDATE alert SET told = 'firing' WHERE state = 'firing'")
