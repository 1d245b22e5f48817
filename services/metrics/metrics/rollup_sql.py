"""The SQL that turns events into rollup rows, in one place for writing, for reading raw edges and for rebuilding."""

from typing import Final

_KEY: Final = "at, model, route, outcome, label"
_BINS: Final = "bins_of(latency_us, score, margin, characters)"

FACTS_OF_PREDICTIONS: Final = f"""
    at, model, route, outcome, coalesce(label, '') AS label, 1::bigint AS n, latency_us, score, characters,
    {_BINS} AS bins
"""
FACTS_OF_COUNTERS: Final = """
    at, '', route, outcome, '', n, 0, NULL::real, 0, '{}'::smallint[]
"""

# Reads a relation `fact (width_s, at, model, route, outcome, label, n, latency_us, score, characters, bins)`.
CELLS: Final = f"""
    cell AS (
        SELECT width_s, {_KEY}, max(latency_us) AS latency_max_us, sum(n)::bigint AS n,
               sum(latency_us)::bigint AS latency_sum_us, count(score) AS scored,
               coalesce(sum(round(score::float8 * 1000000)), 0)::bigint AS score_sum_ppm,
               sum(characters)::bigint AS characters_sum
        FROM fact GROUP BY width_s, {_KEY}
    ), bin AS (
        SELECT width_s, {_KEY}, bin, count(*) AS n
        FROM fact CROSS JOIN LATERAL unnest(fact.bins) AS bin WHERE bin IS NOT NULL
        GROUP BY width_s, {_KEY}, bin
    ), histogram AS (
        SELECT width_s, {_KEY}, array_agg(bin ORDER BY bin) AS bins, array_agg(n ORDER BY bin) AS counts
        FROM bin GROUP BY width_s, {_KEY}
    ), rolled AS (
        SELECT width_s, {_KEY}, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, characters_sum,
               coalesce(bins, '{{}}') AS bins, coalesce(counts, '{{}}') AS counts
        FROM cell LEFT JOIN histogram USING (width_s, {_KEY})
    )
"""

COLUMNS: Final = (
    f"width_s, {_KEY}, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, characters_sum, bins, counts"
)

# Spreads `event` over the three widths of rollup.
FACTS_BY_WIDTH: Final = """
    fact AS (
        SELECT width_s, date_bin(make_interval(secs => width_s), at, 'epoch'::timestamptz) AS at, model, route, outcome,
               label, n, latency_us, score, characters, bins
        FROM event CROSS JOIN unnest('{60,3600,86400}'::integer[]) AS width_s
    )
"""

# Sorted like every other writer's rows, so that writers queue up instead of deadlocking.
MERGE: Final = f"""
    INSERT INTO rollup AS old ({COLUMNS})
    SELECT {COLUMNS} FROM rolled ORDER BY width_s, {_KEY}
    ON CONFLICT (width_s, {_KEY}) DO UPDATE SET
        n = old.n + EXCLUDED.n,
        latency_max_us = greatest(old.latency_max_us, EXCLUDED.latency_max_us),
        latency_sum_us = old.latency_sum_us + EXCLUDED.latency_sum_us,
        scored = old.scored + EXCLUDED.scored,
        score_sum_ppm = old.score_sum_ppm + EXCLUDED.score_sum_ppm,
        characters_sum = old.characters_sum + EXCLUDED.characters_sum,
        (bins, counts) = (
            SELECT coalesce(array_agg(bin ORDER BY bin), '{{}}'), coalesce(array_agg(n ORDER BY bin), '{{}}')
            FROM (
                SELECT bin, sum(n)::bigint AS n
                FROM unnest(old.bins || EXCLUDED.bins, old.counts || EXCLUDED.counts) AS both_of (bin, n) GROUP BY bin
            ) AS summed
        )
"""

WRITE: Final = f"""
WITH new_prediction AS (
    INSERT INTO prediction SELECT * FROM arrived_prediction ORDER BY event_id ON CONFLICT DO NOTHING RETURNING *
), new_counter AS (
    INSERT INTO counter_event SELECT * FROM arrived_counter_event ORDER BY event_id ON CONFLICT DO NOTHING RETURNING *
), event AS (
    SELECT {FACTS_OF_PREDICTIONS} FROM new_prediction UNION ALL SELECT {FACTS_OF_COUNTERS} FROM new_counter
), {FACTS_BY_WIDTH}, {CELLS}, merged AS ({MERGE})
SELECT (SELECT count(*) FROM new_prediction), (SELECT count(*) FROM new_counter)
"""
