"""True labels of predictions, one row each. They stay when the partition of their prediction is dropped."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE feedback (
        prediction_id uuid PRIMARY KEY,
        at timestamptz NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now(),
        model text NOT NULL,
        route text NOT NULL,
        predicted text NOT NULL,
        actual text NOT NULL
    );
    """)
    op.execute("CREATE INDEX feedback_at ON feedback (at)")
