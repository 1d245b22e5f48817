"""The SQL that turns events into rollup rows, in one place for writing, for reading raw edges and for rebuilding."""

from typing import Final

_KEY: Final = "at, model, route, outcome, label"
_FACTS: Final = "at, model, route, outcome, label, latency_us, score, margin, characters"
_BINS: Final = "bins_of(latency_us, score, margin, characters)"

FACTS_OF_PREDICTIONS: Final = f"""
    at, model, route, outcome, coalesce(label, '') AS label, 1::bigint AS n, latency_us, score, characters,
    {_BINS} AS bins
"""
FACTS_OF_COUNTERS: Final = """
    at, '', route, outcome, '', n, 0, NULL::real, 0, '{}'::smallint[]
"""

_SUMS: Final = "n, latency_sum_us, scored, score_sum_ppm, characters_sum"
_ADDED_UP: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in _SUMS.split(", "))

# Reads a relation `fact (width_s, at, model, route, outcome, label, n, latency_us, score, characters, bins)`.
_SUMMED: Final = f"""
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
    )
"""


def _rolled(cell: str, bin: str) -> str:
    return f"""
    histogram AS (
        SELECT width_s, {_KEY}, array_agg(bin ORDER BY bin) AS bins, array_agg(n ORDER BY bin) AS counts
        FROM {bin} GROUP BY width_s, {_KEY}
    ), rolled AS (
        SELECT width_s, {_KEY}, latency_max_us, {_SUMS},
               coalesce(bins, '{{}}') AS bins, coalesce(counts, '{{}}') AS counts
        FROM {cell} LEFT JOIN histogram USING (width_s, {_KEY})
    )
"""


CELLS: Final = f"{_SUMMED}, {_rolled('cell', 'bin')}"

# Rolls `event` up to minutes, and those to hours and days: few rows by then.
_WIDER_AT: Final = "date_bin(make_interval(secs => width.width_s), at, 'epoch'::timestamptz) AS at"
CELLS_BY_WIDTH: Final = f"""
    fact AS (
        SELECT 60 AS width_s, date_bin('1 minute', at, 'epoch'::timestamptz) AS at, model, route, outcome, label, n,
               latency_us, score, characters, bins
        FROM event
    ), {_SUMMED}, width AS (
        SELECT unnest('{{60,3600,86400}}'::integer[]) AS width_s
    ), wide_cell AS (
        SELECT width.width_s, {_WIDER_AT}, model, route, outcome, label,
               max(latency_max_us) AS latency_max_us, {_ADDED_UP}
        FROM cell CROSS JOIN width GROUP BY 1, 2, 3, 4, 5, 6
    ), wide_bin AS (
        SELECT width.width_s, {_WIDER_AT}, model, route, outcome, label, bin, sum(n)::bigint AS n
        FROM bin CROSS JOIN width GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), {_rolled("wide_cell", "wide_bin")}
"""

COLUMNS: Final = f"width_s, {_KEY}, latency_max_us, {_SUMS}, bins, counts"

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
    INSERT INTO prediction SELECT * FROM arrived_prediction ORDER BY event_id ON CONFLICT DO NOTHING
    RETURNING {_FACTS}
), new_counter AS (
    INSERT INTO counter_event SELECT * FROM arrived_counter_event ORDER BY event_id ON CONFLICT DO NOTHING RETURNING *
), event AS (
    SELECT {FACTS_OF_PREDICTIONS} FROM new_prediction UNION ALL SELECT {FACTS_OF_COUNTERS} FROM new_counter
), {CELLS_BY_WIDTH}, octave AS (
    SELECT (bin + 31) / 32 AS bin, sum(n)::bigint AS n FROM bin WHERE outcome = 'ok' AND bin < 1024 GROUP BY 1
), merged AS ({MERGE})
SELECT (SELECT count(*) FROM new_prediction), (SELECT count(*) FROM new_counter),
       (SELECT coalesce(sum(latency_sum_us), 0)::bigint FROM cell WHERE outcome = 'ok'),
       ARRAY(SELECT bin FROM octave ORDER BY bin), ARRAY(SELECT n FROM octave ORDER BY bin)
"""
