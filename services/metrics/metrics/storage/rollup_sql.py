"""SQL that stores each event once and adds it to the rollups, in one statement."""

from collections.abc import Sequence
from typing import Final

from metrics.ranges import WIDTHS_S

KEY: Final = "at, model, route, outcome, label, origin"
SUMS: Final = (
    "n", "latency_sum_us", "scored", "score_sum_ppm", "characters_sum", "queue_sum_us", "compute_sum_us", "tokens_sum",
)  # fmt: skip  # one word a line would be a screenful
HISTOGRAMS: Final = (
    "latency_bins", "score_bins", "character_bins", "queue_bins", "compute_bins", "token_bins",
)  # fmt: skip  # in the order of `bins_of` and `metrics.storage.histogram`
COLUMNS: Final = f"width_s, {KEY}, latency_max_us, {', '.join((*SUMS, *HISTOGRAMS))}"

FACTS_OF_PREDICTIONS: Final = """
    at, model, route, outcome, coalesce(label, '') AS label,
    CASE WHEN outcome <> 'ok' THEN '' WHEN cached THEN 'cache' ELSE 'model' END AS origin,
    1::bigint AS n, latency_us, score, characters, queue_us, compute_us, tokens,
    bins_of(latency_us, score, characters, queue_us, compute_us, tokens, outcome = 'ok' AND NOT cached) AS bins
"""
FACTS_OF_COUNTERS: Final = "at, '', route, outcome, '', '', n, 0, NULL::real, 0, 0, 0, 0, '{}'::smallint[]"

_BIN_NAMES: Final = [f"bin_{place}" for place, _ in enumerate(HISTOGRAMS, 1)]
_IN_BINS: Final = ", ".join(
    f"coalesce(sum(events * in_bin(bin)) FILTER (WHERE bin / 1024 = {place}), 0) AS {name}"
    for place, name in enumerate(HISTOGRAMS)
)


def rolled_up(widths_s: Sequence[int]) -> str:
    """Return the CTEs that roll `event` up to the narrowest of `widths_s`, and from there to the wider ones.

    Events are counted by bin first and only the counts become numbers: one number per event takes twice as long.
    """
    narrowest = min(widths_s)
    return f"""
    fact AS (
        SELECT date_bin('{narrowest} seconds', at, 'epoch'::timestamptz) AS at, model, route, outcome, label, origin,
               n, latency_us, score, characters, queue_us, compute_us, tokens,
               {", ".join(f"bins[{place}] AS {name}" for place, name in enumerate(_BIN_NAMES, 1))}
        FROM event
    ), counted AS (
        SELECT {KEY}, coalesce({", ".join(_BIN_NAMES)}) AS bin, count(*) AS events
        FROM fact GROUP BY {KEY}, GROUPING SETS ({", ".join(_BIN_NAMES)})
    ), histograms AS (
        SELECT {KEY}, {_IN_BINS} FROM counted GROUP BY {KEY}
    ), sums AS (
        SELECT {KEY}, max(latency_us) AS latency_max_us, sum(n)::bigint AS n, sum(latency_us) AS latency_sum_us,
               count(score) AS scored, coalesce(sum(round(score::float8 * 1000000)), 0)::bigint AS score_sum_ppm,
               sum(characters) AS characters_sum, sum(queue_us) AS queue_sum_us, sum(compute_us) AS compute_sum_us,
               sum(tokens) AS tokens_sum
        FROM fact GROUP BY {KEY}
    ), cell AS (
        SELECT * FROM sums JOIN histograms USING ({KEY})
    ), rolled AS (
        SELECT width.width_s, date_bin(make_interval(secs => width.width_s), at, 'epoch'::timestamptz) AS at,
               model, route, outcome, label, origin, max(latency_max_us) AS latency_max_us,
               {", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)},
               {", ".join(f"sum({name}) AS {name}" for name in HISTOGRAMS)}
        FROM cell CROSS JOIN unnest('{{{",".join(map(str, widths_s))}}}'::integer[]) AS width (width_s)
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    )
"""


# Every writer sorts rows by key, so writers wait for each other instead of deadlocking.
_MERGE: Final = f"""
    INSERT INTO rollup AS old ({COLUMNS})
    SELECT {COLUMNS} FROM rolled ORDER BY width_s, {KEY}
    ON CONFLICT (width_s, {KEY}) DO UPDATE SET
        latency_max_us = greatest(old.latency_max_us, EXCLUDED.latency_max_us),
        {", ".join(f"{name} = old.{name} + EXCLUDED.{name}" for name in (*SUMS, *HISTOGRAMS))}
"""

WRITE: Final = f"""
WITH new_prediction AS (
    INSERT INTO prediction SELECT * FROM arrived_prediction ORDER BY event_id ON CONFLICT DO NOTHING
    RETURNING at, model, route, outcome, label, latency_us, score, characters, queue_us, compute_us, tokens, cached
), new_counter AS (
    INSERT INTO counter_event SELECT * FROM arrived_counter_event ORDER BY event_id ON CONFLICT DO NOTHING RETURNING *
), event AS (
    SELECT {FACTS_OF_PREDICTIONS} FROM new_prediction UNION ALL SELECT {FACTS_OF_COUNTERS} FROM new_counter
), {rolled_up(WIDTHS_S)}, merged AS ({_MERGE})
SELECT (SELECT count(*) FROM new_prediction), (SELECT count(*) FROM new_counter)
"""
