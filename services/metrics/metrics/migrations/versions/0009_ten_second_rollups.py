"""Rollups of ten seconds replace those of five, and rollups say whether answers came from the cache and what they cost."""

from alembic import op

revision = "0009"
down_revision = "0008"

_SUMS = ("n", "latency_sum_us", "scored", "score_sum_ppm", "characters_sum")
_BINS = ("latency_bins", "score_bins", "character_bins")
_NEW = ("queue_sum_us", "compute_sum_us", "tokens_sum")
_NEW_BINS = ("queue_bins", "compute_bins", "token_bins")


def upgrade() -> None:
    # `origin` is 'model' or 'cache' for answered predictions. It is empty for everything else, and for predictions
    # counted before this revision, whose queue, compute and token figures were not rolled up either.
    op.execute("ALTER TABLE rollup DROP COLUMN margin_bins, ADD COLUMN origin text NOT NULL DEFAULT ''")
    op.execute(f"ALTER TABLE rollup {', '.join(f'ADD COLUMN {name} bigint NOT NULL DEFAULT 0' for name in _NEW)}")
    op.execute(f"ALTER TABLE rollup {', '.join(f'ADD COLUMN {name} numeric NOT NULL DEFAULT 0' for name in _NEW_BINS)}")
    op.execute("ALTER TABLE rollup DROP CONSTRAINT rollup_pkey")
    _widen_narrowest()
    op.execute("ALTER TABLE rollup ADD PRIMARY KEY (width_s, at, model, route, outcome, label, origin)")
    _replace_bins_of()


def _widen_narrowest() -> None:
    """Add five-second rows up. A minute without complete ones becomes one row, so that no event is missing."""
    key = "model, route, outcome, label"
    sums = ", ".join(f"sum({name})" for name in (*_SUMS, *_BINS))
    columns = f"width_s, at, {key}, latency_max_us, {', '.join((*_SUMS, *_BINS))}"
    op.execute(f"""
    WITH minute AS (
        SELECT date_bin('1 minute', at, 'epoch') AS start FROM rollup WHERE width_s = 5 GROUP BY 1
    ), complete AS (
        SELECT start FROM minute CROSS JOIN LATERAL (
            SELECT sum(n) FILTER (WHERE width_s = 60) AS n, sum(n) FILTER (WHERE width_s = 5) AS narrow
            FROM rollup WHERE width_s IN (5, 60) AND at >= start AND at < start + interval '1 minute'
        ) AS stored WHERE n = narrow
    )
    INSERT INTO rollup ({columns})
    SELECT 10, date_bin('10 seconds', at, 'epoch') AS slot, {key}, max(latency_max_us), {sums} FROM rollup
    WHERE width_s = 5 AND date_bin('1 minute', at, 'epoch') IN (SELECT start FROM complete)
    GROUP BY slot, {key}
    UNION ALL
    SELECT 10, at, {key}, latency_max_us, {", ".join((*_SUMS, *_BINS))} FROM rollup
    WHERE width_s = 60 AND at >= now() - interval '4 hours' AND at NOT IN (SELECT start FROM complete)
    """)
    op.execute("DELETE FROM rollup WHERE width_s = 5")


def _replace_bins_of() -> None:
    """Bins of the six histograms are numbered from multiples of 1024. `metrics.storage.histogram` reads them.

    Times and tokens lie on a grid with γ = 2^(1/32), characters on one with 2^(1/4), scores in tenths (1 in the last).
    """
    op.execute("DROP FUNCTION bins_of(integer, real, real, integer)")
    op.execute("""
    CREATE FUNCTION bins_of(
        latency_us integer, score real, characters integer, queue_us integer, compute_us integer, tokens integer,
        is_computed boolean
    ) RETURNS smallint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY[
        ceil(ln(greatest(latency_us, 1)::float8) * (32 / ln(2::float8)))::smallint,
        (1024 + floor(score::float8 * 10) - floor(score))::smallint,
        (2048 + ceil(ln(greatest(characters, 1)::float8) * (4 / ln(2::float8))))::smallint,
        CASE WHEN is_computed THEN (3072 + ceil(ln(greatest(queue_us, 1)::float8) * (32 / ln(2::float8))))::smallint END,
        CASE WHEN is_computed THEN (4096 + ceil(ln(greatest(compute_us, 1)::float8) * (32 / ln(2::float8))))::smallint
        END,
        CASE WHEN is_computed THEN (5120 + ceil(ln(greatest(tokens, 1)::float8) * (32 / ln(2::float8))))::smallint END
    ];
    """)
