"""Each histogram becomes one number, which PostgreSQL adds up as it is; arrays were taken apart for every sum."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # Bin i is the i-th group of twelve decimal digits; `metrics.histogram` reads them. `bins_of` numbers the bins of
    # its four histograms from multiples of 1024.
    op.execute("""
    CREATE FUNCTION in_bin(bin smallint) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ('1e' || 12 * (bin % 1024))::numeric;
    """)
    op.execute("ALTER TABLE rollup RENAME TO rollup_of_arrays")
    op.execute("ALTER INDEX rollup_pkey RENAME TO rollup_of_arrays_pkey")
    op.execute("""
    CREATE TABLE rollup (
        at timestamptz NOT NULL,
        width_s integer NOT NULL,
        latency_max_us integer NOT NULL,
        n bigint NOT NULL,
        latency_sum_us bigint NOT NULL,
        scored bigint NOT NULL,
        score_sum_ppm bigint NOT NULL,
        characters_sum bigint NOT NULL,
        model text NOT NULL,
        route text NOT NULL,
        outcome text NOT NULL,
        label text NOT NULL,
        latency_bins numeric NOT NULL,
        score_bins numeric NOT NULL,
        margin_bins numeric NOT NULL,
        character_bins numeric NOT NULL
    ) WITH (fillfactor = 70, toast_tuple_target = 8160);
    """)
    op.execute("""
    INSERT INTO rollup
    SELECT at, width_s, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, characters_sum,
           model, route, outcome, label, histogram.*
    FROM rollup_of_arrays CROSS JOIN LATERAL (
        SELECT coalesce(sum(count * in_bin(bin)) FILTER (WHERE bin / 1024 = 0), 0),
               coalesce(sum(count * in_bin(bin)) FILTER (WHERE bin / 1024 = 1), 0),
               coalesce(sum(count * in_bin(bin)) FILTER (WHERE bin / 1024 = 2), 0),
               coalesce(sum(count * in_bin(bin)) FILTER (WHERE bin / 1024 = 3), 0)
        FROM unnest(bins, counts) AS counted (bin, count)
    ) AS histogram
    """)
    op.execute("ALTER TABLE rollup ADD PRIMARY KEY (width_s, at, model, route, outcome, label)")
    op.execute("DROP TABLE rollup_of_arrays")
