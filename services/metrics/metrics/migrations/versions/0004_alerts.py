"""Alerts, the time of the last evaluation, and notifications waiting to be sent."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE alert (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        fingerprint text NOT NULL,
        state text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
        value float8,
        pending_at timestamptz NOT NULL,
        firing_at timestamptz,
        healthy_at timestamptz,
        resolved_at timestamptz,
        rule jsonb NOT NULL
    );
    """)
    op.execute("CREATE UNIQUE INDEX alert_unresolved ON alert (fingerprint) WHERE state <> 'resolved'")
    op.execute("CREATE INDEX alert_resolved ON alert (resolved_at) WHERE state = 'resolved'")
    op.execute("CREATE TABLE evaluation (tick bigint NOT NULL, at timestamptz NOT NULL)")
    op.execute("INSERT INTO evaluation VALUES (0, 'epoch')")
    op.execute("""
    CREATE TABLE notification (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        fingerprint text NOT NULL,
        created_at timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        body text NOT NULL
    );
    """)
    op.execute("CREATE INDEX notification_fingerprint ON notification (fingerprint, id)")
