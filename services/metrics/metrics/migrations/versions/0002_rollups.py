"""Exact counts, sums and histograms per minute, hour and day, and the function that says which bins a prediction hits."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Four histograms share one sparse array; `metrics.histogram` decodes it. Latency lies on a grid with
    # γ = 2^(1/32), characters on one with 2^(1/4), score and margin in tenths (1 in the last;
    # without a value the whole expression is null, which `least` would not be). Changing this needs a rebuild.
    op.execute("""
    CREATE FUNCTION bins_of(latency_us integer, score real, margin real, characters integer) RETURNS smallint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY[
        ceil(ln(greatest(latency_us, 1)::float8) * (32 / ln(2::float8)))::smallint,
        (1024 + floor(score::float8 * 10) - floor(score))::smallint,
        (2048 + floor(margin::float8 * 10) - floor(margin))::smallint,
        (3072 + ceil(ln(greatest(characters, 1)::float8) * (4 / ln(2::float8))))::smallint
    ];
    """)
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
        bins smallint[] NOT NULL,
        counts bigint[] NOT NULL,
        PRIMARY KEY (width_s, at, model, route, outcome, label)
    ) WITH (fillfactor = 70);
    """)
