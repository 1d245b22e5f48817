"""The sliding log, its clock, and the heartbeats of the replicas."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    # A function, so that tests can move the clock.
    op.execute("""
        CREATE FUNCTION now_us() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS
        $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$
    """)
    # The columns besides the log belong to the last decision, so that RETURNING can report it. No index on time:
    # updates stay in their page (HOT). The log is kept in line: a detour through TOAST would double the writes.
    op.execute("""
        CREATE TABLE admissions (
            key       bytea    PRIMARY KEY,
            quota     int      NOT NULL,
            window_us bigint   NOT NULL,
            cost      int      NOT NULL,
            admitted  int      NOT NULL,
            at_us     bigint   NOT NULL,
            log_us    bigint[] NOT NULL
        ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)
    """)
    op.execute("ALTER TABLE admissions ALTER log_us SET STORAGE MAIN")
    op.execute("CREATE TABLE replicas (id text PRIMARY KEY, seen_at timestamptz NOT NULL)")
