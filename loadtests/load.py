"""`make load`: the whole system under many kinds of users for two minutes, checked against stated objectives.

    python loadtests/load.py [--users 1080] [--seconds 120]

It starts a separate system with its own ports, stores and state folder and a Gemini on loopback. Prints objectives and
results. Exits with 1 if an objective is missed.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
from fake_gemini import GOOD, Script, rest
from objectives import Objective, breaches_in_admissions, breaches_in_answers, not_stored_once, wrongly_refused
from own_system import own_system
from system import System
from users import answers
from users.answers import Answer
from watch import Watch

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
LIMIT, ANALYZE_LIMIT, WINDOW_S = 60, 30, 60
CONNECTIONS, CACHED_MS, HIT_SHARE, CALLS_SAVED, BUSY, OTHERS = 1000, 50.0, 0.90, 50.0, 0.70, 0.2
WARM_UP: Final = 30
SPAWN_S: Final = 20
STEADY_S: Final = SPAWN_S + 10  # since the start of Locust, which itself takes some seconds
DRAIN_S: Final = 20.0
GEMINI_S: Final = 1.0
SETTINGS: Final = {
    "EDGE_RATE_LIMIT": str(LIMIT),
    "EDGE_RATE_WINDOW_S": str(WINDOW_S),
    "EDGE_ANALYZE_RATE_LIMIT": str(ANALYZE_LIMIT),
    "EDGE_ANALYZE_RATE_WINDOW_S": str(WINDOW_S),
    "EDGE_METRICS_RATE_LIMIT": "1000",  # the run waits for counts
    "EDGE_METRICS_RATE_WINDOW_S": "1",
    "GEMINI_API_KEY": "none",
    "GEMINI_SDK": "genai",
    "GEMINI_CACHE_TTL": "60",  # so that reports are renewed during the test
}


@dataclass
class Found:
    """Everything that the objectives are checked against."""

    answers: list[Answer]
    rows: dict[str, int]
    calls: int
    failed: int
    watch: Watch
    seconds: float


def main() -> int:
    options = _options()
    place = ROOT / ".cache" / "load" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    place.mkdir(parents=True)
    print(f"starting a separate system in {place}", flush=True)
    found = asyncio.run(_measured(place, options))
    objectives = [*_objectives(found)]
    (place / "objectives.json").write_text(json.dumps([asdict(one) for one in objectives], indent=1))
    _print(objectives, found, place)
    return 0 if all(one.is_met for one in objectives) else 1


async def _measured(place: Path, options: argparse.Namespace) -> Found:
    script = Script(text=GOOD, delay_s=GEMINI_S)
    async with rest(script) as gemini:
        with own_system(place / "state", GEMINI_ENDPOINT=gemini, **SETTINGS) as system:
            await _warm_up(system)
            watch = Watch(system)
            failed = await _under_load(system, watch, place, options)
            found = [*answers.read(place / "answers")]
            expected = WARM_UP + sum(one.units for one in found if one.status == 200 and one.policy == "predict")
            await _counted(system, expected)
            rows = await _stored(system, watch)
    return Found(found, rows, script.calls, failed, watch, options.seconds)


async def _warm_up(system: System) -> None:
    """Send some predictions, so that the first report has data."""
    async with aiohttp.ClientSession(system.url, headers={"X-Forwarded-For": "198.19.255.1"}) as session:
        for number in range(WARM_UP):
            async with session.post("/predict", json={"text": f"warm {number}"}) as response:
                assert response.status == 200, await response.text()
    await _counted(system, WARM_UP)


async def _under_load(system: System, watch: Watch, place: Path, options: argparse.Namespace) -> int:
    """Run Locust. Returns the number of responses that it counts as failures."""
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--host", system.url]
    command += ["--users", str(options.users), "--spawn-rate", str(options.users / SPAWN_S)]
    command += ["--run-time", f"{options.seconds:.0f}s", "--stop-timeout", "10", "--exit-code-on-error", "0"]
    command += ["--html", str(place / "report.html"), "--json-file", str(place / "locust"), "--only-summary"]
    command += ["--answers", str(place / "answers"), "--loglevel", "WARNING"]
    environment = os.environ | {"SLUICE_ADMIN_TOKEN": system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]}
    with (place / "locust.log").open("wb") as log:
        locust = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
        watching = asyncio.create_task(watch.run(locust.pid))
        try:
            await _waited(locust, options.seconds)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            if locust.returncode is None:
                locust.terminate()
                await locust.wait()
    if not watching.cancelled():
        watching.result()  # raise its error: its observations are incomplete
    statistics_ = json.loads((place / "locust.json").read_text())
    return sum(one["num_failures"] for one in statistics_)


async def _waited(locust: asyncio.subprocess.Process, seconds: float) -> None:
    started = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(20):
                await locust.wait()
                break
        except TimeoutError:
            print(f"  {time.monotonic() - started:.0f} of {seconds:.0f} s", flush=True)
    if locust.returncode:
        raise SystemExit(f"Locust ended with {locust.returncode}; see locust.log")


async def _counted(system: System, expected: int) -> None:
    """Wait until all answered predictions are counted, or for a bounded time. Missing ones are reported later."""
    deadline = time.monotonic() + DRAIN_S
    async with aiohttp.ClientSession(system.url) as session:
        while time.monotonic() < deadline:
            async with session.get("/metrics/count") as response:
                if response.status == 200 and (await response.json())["count"] >= expected:
                    return
            await asyncio.sleep(0.1)


async def _stored(system: System, watch: Watch) -> dict[str, int]:
    """Return the stored texts by request id, and the final state of the limits."""
    database = await system.database()
    try:
        await watch.look_at_limits(database)
        query = "SELECT request_id, count(*) FROM metrics.prediction WHERE outcome = 'ok' GROUP BY request_id"
        return {row[0]: row[1] for row in await database.fetch(query)}
    finally:
        await database.close()


def _objectives(found: Found) -> Iterator[Objective]:
    predictions = [one for one in found.answers if one.policy == "predict"]
    reports = [one for one in found.answers if one.policy == "analyze"]
    held = found.watch.held(STEADY_S, found.seconds)
    yield Objective("connections held at once", f">= {CONNECTIONS:,}", f"{held:,}", held >= CONNECTIONS)
    yield from _reports(reports, found.calls)
    yield from _limits_by_answers(predictions, reports)
    yield _limits_by_database(found.watch)
    flood = [one for one in found.answers if one.user == "Attacker" and one.status != 200]
    bad = sum(one.status != 429 or not one.refused_well for one in flood)
    yield Objective(
        "attackers' refusals", "all 429 problem documents", f"{len(flood):,}, {bad} others", not bad and bool(flood)
    )
    lost = not_stored_once(predictions, found.rows)
    answered = sum(one.units for one in predictions if one.status == 200)
    yield Objective(
        "answered texts in PostgreSQL",
        "each once",
        f"{answered:,}, {len(lost)} requests not",
        not lost and answered > 0,
    )
    yield Objective("other failures", "0", f"{found.failed:,} of {len(found.answers):,}", found.failed == 0)
    system, generator, _ = found.watch.busy(STEADY_S)
    yield Objective(
        "processors busy with system and generator",
        f"<= {BUSY:.0%}",
        f"{system + generator:.0%}",
        system + generator <= BUSY,
    )


def _reports(reports: Sequence[Answer], calls: int) -> Iterator[Objective]:
    served = [one for one in reports if one.status == 200]
    hits = [1000 * (one.received_s - one.sent_s) for one in served if one.cache == "HIT"]
    mean = statistics.fmean(hits) if hits else float("inf")
    share = len(hits) / max(1, len(served))
    saved = len(served) / max(1, calls)
    yield Objective(
        "cached analysis, mean", f"< {CACHED_MS:.0f} ms", f"{mean:.1f} ms of {len(hits):,}", mean < CACHED_MS
    )
    yield Objective("cache hits", f"> {HIT_SHARE:.0%}", f"{share:.1%} of {len(served):,}", share > HIT_SHARE)
    yield Objective(
        "analyses for one Gemini call",
        f">= {CALLS_SAVED:.0f}",
        f"{saved:,.0f} ({calls} calls)",
        calls > 0 and saved >= CALLS_SAVED,
    )


def _limits_by_answers(predictions: Sequence[Answer], reports: Sequence[Answer]) -> Iterator[Objective]:
    breaches, wrong = 0, 0
    for policy, limit in ((predictions, LIMIT), (reports, ANALYZE_LIMIT)):
        breaches += len(breaches_in_answers(policy, limit, WINDOW_S))
        wrong += len(wrongly_refused(policy, limit, WINDOW_S))
    addresses = len({one.address for one in (*predictions, *reports)})
    refusals = sum(one.status == 429 for one in (*predictions, *reports))
    above = f"{breaches} of {addresses:,} addresses"
    yield Objective("addresses above their limit, by the generator's log", "0", above, not breaches and addresses > 0)
    yield Objective("refusals that had room", "0", f"{wrong} of {refusals:,}", not wrong and refusals > 0)


def _limits_by_database(watch: Watch) -> Objective:
    checked = []
    for limit, keys in watch.admissions.items():
        promised = ANALYZE_LIMIT if limit == ANALYZE_LIMIT else LIMIT  # whichever policy the edge applied
        checked.append((breaches_in_admissions(keys, promised, WINDOW_S * 10**6), keys))
    breaches, seen = sum(len(found) for found, _ in checked), sum(len(keys) for _, keys in checked)
    full = sum(sum(times.values()) >= limit for limit, keys in watch.admissions.items() for times in keys.values())
    found = f"{breaches} of {seen:,} keys ({full} reached it)"
    return Objective("addresses above their limit, by PostgreSQL's log", "0", found, not breaches and full > 0)


def _print(objectives: Iterable[Objective], found: Found, place: Path) -> None:
    print("\n| objective | wanted | found | |\n|---|---|---|---|")
    for one in objectives:
        print(f"| {one.name} | {one.wanted} | {one.found} | {'met' if one.is_met else 'MISSED'} |")
    print("\n| users | answers | 200 | 429 | p50 ms | p95 ms | p99 ms |\n|---|---:|---:|---:|---:|---:|---:|")
    for user in sorted({one.user for one in found.answers}):
        print(_row(user, [one for one in found.answers if one.user == user]))
    system, generator, machine = found.watch.busy(STEADY_S)
    others = max(0.0, machine - system - generator)
    print(f"\nOf all processors: system {system:.0%}, generator {generator:.0%}, other programs {others:.0%}.")
    if others > OTHERS:
        print("Other programs kept this machine busy: a missed objective may be theirs. Run it again when it is quiet.")
    print(f"HTML report: {place / 'report.html'}")


def _row(user: str, found: Sequence[Answer]) -> str:
    ms = sorted(1000 * (one.received_s - one.sent_s) for one in found if one.status == 200) or [float("nan")]
    p50, p95, p99 = (f"{ms[len(ms) * share // 100]:.1f}" for share in (50, 95, 99))
    ok, refused = (sum(one.status == status for one in found) for status in (200, 429))
    return f"| {user} | {len(found):,} | {ok:,} | {refused:,} | {p50} | {p95} | {p99} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=1080, help="each holds a connection (1080)")
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    if options.seconds < 2 * STEADY_S:
        parser.error(f"--seconds must be at least {2 * STEADY_S}")
    return options


if __name__ == "__main__":
    sys.exit(main())
