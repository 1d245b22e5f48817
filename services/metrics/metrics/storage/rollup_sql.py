"""SQL that turns events into rollup rows, shared by the writer and by queries over single events."""

from collections.abc import Sequence
from typing import Final

from metrics.ranges import FINE_S, WIDTHS_S

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


def cells(histograms: Sequence[str]) -> str:
    """Adds up a relation `fact (width_s, at, model, route, outcome, label, n, latency_us, score, characters, bins)`.

    Events are counted by bin first, and only the counts become numbers: a number for each event takes twice as long.
    """
    names = [f"bin_{_HISTOGRAMS.index(name) + 1}" for name in histograms]
    sums = ", ".join(f"(sum({name}) FILTER (WHERE is_first))::bigint AS {name}" for name in _SUMS)
    numbers = ", ".join(
        f"coalesce(sum(events * in_bin(bin)) FILTER (WHERE bin / 1024 = {_HISTOGRAMS.index(name)}), 0) AS {name}"
        for name in histograms
    )
    return f"""
    counted AS (
        SELECT width_s, {_KEY}, coalesce({", ".join(names)}) AS bin, GROUPING({names[0]}) = 0 AS is_first,
               count(*) AS events, max(latency_us) AS latency_max_us, sum(n) AS n, sum(latency_us) AS latency_sum_us,
               count(score) AS scored,
               coalesce(sum(round(score::float8 * 1000000)), 0)::bigint AS score_sum_ppm,
               sum(characters) AS characters_sum
        FROM (
            SELECT *, bins[1] AS bin_1, bins[2] AS bin_2, bins[3] AS bin_3, bins[4] AS bin_4 FROM fact
        ) AS binned
        GROUP BY width_s, {_KEY}, GROUPING SETS ({", ".join(names)})
    ), cell AS (
        SELECT width_s, {_KEY}, max(latency_max_us) AS latency_max_us, {sums}, {numbers}
        FROM counted GROUP BY width_s, {_KEY}
    )
"""


def rolled_up(widths_s: Sequence[int]) -> str:
    """Rolls `event` up to the narrowest of `widths_s`, and that to the others: few rows by then."""
    return f"""
    fact AS (
        SELECT {min(widths_s)} AS width_s, date_bin('{min(widths_s)} seconds', at, 'epoch'::timestamptz) AS at,
               model, route, outcome, label, n, latency_us, score, characters, bins
        FROM event
    ), {cells(_HISTOGRAMS)}, rolled AS (
        SELECT width.width_s, date_bin(make_interval(secs => width.width_s), at, 'epoch'::timestamptz) AS at,
               model, route, outcome, label, {_ADDED_UP}
        FROM cell CROSS JOIN unnest('{{{",".join(map(str, widths_s))}}}'::integer[]) AS width (width_s)
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
), {rolled_up((FINE_S, *WIDTHS_S))}, merged AS ({MERGE})
SELECT (SELECT count(*) FROM new_prediction), (SELECT count(*) FROM new_counter)
"""
