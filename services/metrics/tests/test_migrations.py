"""Migrations keep the meaning of rows stored by older versions."""

import asyncio
from typing import Any

import pytest

from common.stores.migrations import migrate
from common.stores.postgres import create_pool

EVENTS = """
INSERT INTO prediction (at, event_id, latency_us, queue_us, compute_us, tokens, characters, score, margin, cached,
                        truncated, route, outcome, model, revision, label, request_id)
SELECT 'epoch'::timestamptz + make_interval(days => 20000, secs => n), gen_random_uuid(), n * n, 0, 0, 0, n,
       CASE WHEN n % 3 > 0 THEN (n % 101) / 100.0 END, NULL, false, false, '/predict', 'ok', 'm', '1', 'P', 'r'
FROM generate_series(0, 300) AS n
"""
ROLLUPS = """
WITH hit AS (
    SELECT width_s, date_bin(make_interval(secs => width_s), at, 'epoch') AS at, bin, count(*) AS n
    FROM prediction, unnest('{60,3600,86400}'::integer[]) AS width_s,
         LATERAL unnest(bins_of(latency_us, score, margin, characters)) AS bin
    WHERE bin IS NOT NULL GROUP BY 1, 2, 3
)
INSERT INTO rollup
SELECT date_bin(make_interval(secs => width_s), at, 'epoch') AS start, width_s, max(latency_us), count(*),
       sum(latency_us), count(score), coalesce(sum(round(score::float8 * 1000000)), 0), sum(characters),
       'm', '/predict', 'ok', 'P',
       (SELECT array_agg(bin ORDER BY bin) FROM hit WHERE hit.width_s = width.width_s
        AND hit.at = date_bin(make_interval(secs => width.width_s), min(prediction.at), 'epoch')),
       (SELECT array_agg(n ORDER BY bin) FROM hit WHERE hit.width_s = width.width_s
        AND hit.at = date_bin(make_interval(secs => width.width_s), min(prediction.at), 'epoch'))
FROM prediction, unnest('{60,3600,86400}'::integer[]) AS width (width_s) GROUP BY start, width_s
"""


async def execute(url: str, *statements: str) -> None:
    async with create_pool(url, schema="metrics", application="test", size=1, timeout_s=20) as pool:
        for statement in statements:
            await pool.execute(statement)


COUNTS = "SELECT width_s, sum(n)::int, sum(latency_sum_us)::int, sum(latency_bins) FROM rollup GROUP BY 1 ORDER BY 1"
FIVE_SECONDS = """
INSERT INTO rollup (width_s, at, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, characters_sum,
                    model, route, outcome, label, latency_bins, score_bins, margin_bins, character_bins)
SELECT width_s, date_bin(make_interval(secs => width_s), at, 'epoch'), max(n), count(*), sum(n), 0, 0, 0, 'm',
       '/predict', 'ok', 'P', sum(in_bin((n % 7)::smallint)), 0, 0, 0
FROM (SELECT now() - make_interval(secs => n * 3) AS at, n FROM generate_series(0, 999) AS n) AS event
CROSS JOIN unnest('{5,60,86400}'::integer[]) AS width (width_s) GROUP BY 1, 2
"""


async def fetch(url: str, statement: str) -> list[tuple[Any, ...]]:
    async with create_pool(url, schema="metrics", application="test", size=1, timeout_s=20) as pool:
        return [tuple(row) for row in await pool.fetch(statement)]


def test_rollups_of_arrays__keep_counts_sums_and_histograms(database_url: str) -> None:
    migrate(database_url, package="metrics", schema="metrics", revision="0005")
    asyncio.run(execute(database_url, EVENTS, ROLLUPS))
    migrate(database_url, package="metrics", schema="metrics")
    days = "SELECT sum(n)::int, sum(latency_bins) FROM rollup WHERE width_s = 86400"
    bins = "(bins_of(latency_us, score, characters, queue_us, compute_us, tokens, true))[1]"
    events = f"SELECT count(*)::int, sum(in_bin({bins})) FROM prediction"
    assert asyncio.run(fetch(database_url, days)) == asyncio.run(fetch(database_url, events))


@pytest.mark.parametrize("lost", ["false", "extract(second FROM at) < 30", "true"])
def test_five_second_rollups__become_ten_second_ones_and_lose_no_event(database_url: str, lost: str) -> None:
    migrate(database_url, package="metrics", schema="metrics", revision="0008")
    asyncio.run(execute(database_url, FIVE_SECONDS))
    (_, *before), minutes, days = asyncio.run(fetch(database_url, COUNTS))
    asyncio.run(execute(database_url, f"DELETE FROM rollup WHERE width_s = 5 AND {lost}"))
    migrate(database_url, package="metrics", schema="metrics")
    assert asyncio.run(fetch(database_url, COUNTS)) == [(10, *before), minutes, days]


def test_alert_that_fires_meanwhile__counts_as_told(database_url: str) -> None:
    migrate(database_url, package="metrics", schema="metrics", revision="0007")
    columns = "(fingerprint, state, pending_at, rule)"
    fires, waits = (f"INSERT INTO alert {columns} VALUES ('{s}', '{s}', now(), '{{}}')" for s in ("firing", "pending"))
    asyncio.run(execute(database_url, fires, waits))
    migrate(database_url, package="metrics", schema="metrics")

    async def told() -> list[str]:
        async with create_pool(database_url, schema="metrics", application="test", size=1, timeout_s=20) as pool:
            return [
                row["fingerprint"] for row in await pool.fetch("SELECT fingerprint FROM alert WHERE told IS NOT NULL")
            ]

    assert asyncio.run(told()) == ["firing"]
