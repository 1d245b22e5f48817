"""Every report that was made, newest first by its time-ordered id."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE report (
        id uuid PRIMARY KEY,
        generated_at timestamptz NOT NULL,
        document jsonb NOT NULL
    );
    """)
    op.execute("CREATE INDEX report_generated_at ON report (generated_at);")
