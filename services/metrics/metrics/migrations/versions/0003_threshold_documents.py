"""Every version of the thresholds document, the newest in force."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE threshold_document (
        version bigint PRIMARY KEY CHECK (version > 0),
        created_at timestamptz NOT NULL DEFAULT now(),
        document jsonb NOT NULL
    );
    """)
