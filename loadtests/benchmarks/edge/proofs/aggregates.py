"""One address that polls aggregates is limited, and predictions of others keep their latency."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from own_system import own_system

from benchmarks.edge import rounds
from benchmarks.edge.proofs.claims import Answer, Claim, client, post

REQUESTS, SECONDS = 300, 60.0
LIMIT: Final = 120
DEFAULT_POLICY: Final = {"EDGE_METRICS_RATE_LIMIT": str(LIMIT), "EDGE_METRICS_RATE_WINDOW_S": "60"}
PREDICTIONS_PER_S, CALM_S = 20.0, 20.0
ADDRESS: Final = "203.0.113.7"


def prove() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as folder, own_system(Path(folder) / "state", **DEFAULT_POLICY) as system:
        port = system.port_base
        rounds.load(Path(folder), port, 5.0, 8, rounds.CLIENTS, rate=PREDICTIONS_PER_S)  # warm up
        before_ms = _p99_ms(Path(folder), port, CALM_S)
        answers, meanwhile_ms = asyncio.run(_poll_and_measure(Path(folder), system.url, port))
    refused = [answer for answer in answers if answer.status == 429]
    admitted = sum(answer.status == 200 for answer in answers)
    yield Claim(
        f"{LIMIT} of {REQUESTS} POST /metrics/aggregated in {SECONDS:g} s from one address are admitted",
        admitted == LIMIT and len(refused) == REQUESTS - LIMIT,
        f"{admitted} admitted, {len(refused)} refused, {REQUESTS - admitted - len(refused)} other",
    )
    yield Claim(
        "each of these refusals carries Retry-After",
        bool(refused) and all(answer.headers.get("Retry-After", "").isdigit() for answer in refused),
        f"{sum('Retry-After' in answer.headers for answer in refused)} of {len(refused)}",
    )
    yield Claim(
        "the p99 of predictions from other addresses at most doubles meanwhile",
        meanwhile_ms <= 2 * before_ms,
        f"{before_ms:.1f} ms before, {meanwhile_ms:.1f} ms meanwhile",
    )


async def _poll_and_measure(folder: Path, url: str, port: int) -> tuple[list[Answer], float]:
    measuring = asyncio.create_task(asyncio.to_thread(_p99_ms, folder, port, SECONDS))
    started = time.monotonic()
    async with client() as session, asyncio.TaskGroup() as group:
        asked = []
        for number in range(REQUESTS):
            await asyncio.sleep(max(0.0, started + number * SECONDS / REQUESTS - time.monotonic()))
            asked.append(group.create_task(post(session, f"{url}/metrics/aggregated", ADDRESS, {"window": "1h"})))
    return [task.result() for task in asked], await measuring


def _p99_ms(folder: Path, port: int, seconds: float) -> float:
    result = rounds.load(folder, port, seconds, 16, rounds.CLIENTS, rate=PREDICTIONS_PER_S)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"predictions were answered with {result['statuses']}")
    return float(result["statuses"]["200"]["p99_ms"])
