"""Raw events, one row each, partitioned by day; the default partition takes days that have no partition yet."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE prediction (
        at timestamptz NOT NULL,
        event_id uuid NOT NULL,
        latency_us integer NOT NULL,
        queue_us integer NOT NULL,
        compute_us integer NOT NULL,
        tokens integer NOT NULL,
        characters integer NOT NULL,
        score real,
        margin real,
        cached boolean NOT NULL,
        truncated boolean NOT NULL,
        route text NOT NULL,
        outcome text NOT NULL,
        model text NOT NULL,
        revision text NOT NULL,
        label text,
        request_id text NOT NULL,
        trace_id text,
        client text,
        text text,
        PRIMARY KEY (event_id, at)
    ) PARTITION BY RANGE (at);
    """)
    op.execute("CREATE INDEX prediction_at ON prediction USING brin (at) WITH (pages_per_range = 32, autosummarize = on)")
    op.execute("CREATE TABLE prediction_default PARTITION OF prediction DEFAULT")
    op.execute("""
    CREATE TABLE counter_event (
        at timestamptz NOT NULL,
        event_id uuid NOT NULL,
        n bigint NOT NULL,
        route text NOT NULL,
        outcome text NOT NULL,
        policy text NOT NULL,
        PRIMARY KEY (event_id, at)
    ) PARTITION BY RANGE (at);
    """)
    op.execute(
        "CREATE INDEX counter_event_at ON counter_event USING brin (at) WITH (pages_per_range = 32, autosummarize = on)"
    )
    op.execute("CREATE TABLE counter_event_default PARTITION OF counter_event DEFAULT")
    op.execute("CREATE TABLE retention (relation text PRIMARY KEY, kept_from timestamptz NOT NULL)")
