"""The last state sent to the webhook, for each alert. Alerts that fire now count as sent."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE alert ADD COLUMN told text")
    op.execute("UPDATE alert SET told = 'firing' WHERE state = 'firing'")
