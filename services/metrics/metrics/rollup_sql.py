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

_SUMS: Final = ("n", "latency_sum_us", "scored", "score_sum_ppm", "characters_sum")
_HISTOGRAMS: Final = ("latency_bins", "score_bins", "margin_bins", "character_bins")  # in the order of `bins_of`
_FIGURES: Final = ", ".join(("latency_max_us", *_SUMS, *_HISTOGRAMS))
_ADDED_UP: Final = ", ".join(
    (
        "max(latency_max_us) AS latency_max_us",
        *(f"sum({name})::bigint AS {name}" for name in _SUMS),
        *(f"sum({name}) AS {name}" for name in _HISTOGRAMS),
    )
)

# Reads a relation `fact (width_s, at, model, route, outcome, label, n, latency_us, score, characters, bins)`.
CELLS: Final = f"""
    cell AS (
        SELECT width_s, {_KEY}, max(latency_us) AS latency_max_us, sum(n)::bigint AS n,
               sum(latency_us)::bigint AS latency_sum_us, count(score) AS scored,
               coalesce(sum(round(score::float8 * 1000000)), 0)::bigint AS score_sum_ppm,
               sum(characters)::bigint AS characters_sum,
               {", ".join(f"coalesce(sum(in_bin(bins[{n}])), 0) AS {name}" for n, name in enumerate(_HISTOGRAMS, 1))}
        FROM fact GROUP BY width_s, {_KEY}
    )
"""

# Rolls `event` up to minutes, and those to hours and days: few rows by then.
CELLS_BY_WIDTH: Final = f"""
    fact AS (
        SELECT 60 AS width_s, date_bin('1 minute', at, 'epoch'::timestamptz) AS at, model, route, outcome, label, n,
               latency_us, score, characters, bins
        FROM event
    ), {CELLS}, rolled AS (
        SELECT width.width_s, date_bin(make_interval(secs => width.width_s), at, 'epoch'::timestamptz) AS at,
               model, route, outcome, label, {_ADDED_UP}
        FROM cell CROSS JOIN unnest('{{60,3600,86400}}'::integer[]) AS width (width_s)
        GROUP BY 1, 2, 3, 4, 5, 6
    )
"""

COLUMNS: Final = f"width_s, {_KEY}, {_FIGURES}"

# Sorted like every other writer's rows, so that writers queue up instead of deadlocking.
MERGE: Final = f"""
    INSERT INTO rollup AS old ({COLUMNS})
    SELECT {COLUMNS} FROM rolled ORDER BY width_s, {_KEY}
    ON CONFLICT (width_s, {_KEY}) DO UPDATE SET
        latency_max_us = greatest(old.latency_max_us, EXCLUDED.latency_max_us),
        {", ".join(f"{name} = old.{name} + EXCLUDED.{name}" for name in (*_SUMS, *_HISTOGRAMS))}
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
    SELECT (bins[1] + 31) / 32 AS bin, count(*) AS n FROM event WHERE outcome = 'ok' AND bins <> '{{}}' GROUP BY 1
), merged AS ({MERGE})
SELECT (SELECT count(*) FROM new_prediction), (SELECT count(*) FROM new_counter),
       (SELECT coalesce(sum(latency_sum_us), 0)::bigint FROM cell WHERE outcome = 'ok'),
       ARRAY(SELECT bin FROM octave ORDER BY bin), ARRAY(SELECT n FROM octave ORDER BY bin)
"""
