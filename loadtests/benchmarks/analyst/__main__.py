"""Compares the analyst's single flight with other caches, by calls per crowd, and times its cached reports.

    python -m benchmarks.analyst [--short]

The other caches run in a separate environment (benchmarks/peers.py).
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from fake_gemini import GOOD, Script, rest
from redis import Redis

from benchmarks import results
from benchmarks.analyst.metrics_stub import metrics_service
from benchmarks.peers import install, versions
from launcher.ports import free_ports
from launcher.testing import started, until_ready
from launcher.valkey import SETTINGS_FOR_TESTS, Valkey

HERE: Final = Path(__file__).parent
CONTENDERS: Final = ("sluice", "redis-lock", "cashews", "aiocache")
CROWDS: Final = ((150, 3), (1000, 4))
KINDS: Final = {"calls": "calls", "commands": "Redis commands"}
RATE: Final = 500
MIX_RATE: Final = 100
MIX_TTL_S: Final = 60
MIX: Final = {"1h": 60, "24h": 15, "15m": 10, "5m": 8, "6h": 5, "7d": 2}


def main() -> None:
    options = _options()
    peers = install("analyst")
    ports = free_ports()
    measures: list[results.Measure] = []
    with tempfile.TemporaryDirectory() as state, started(_valkey(state, next(ports))) as server:
        for requests, processes in CROWDS:
            crowds = {}
            for contender in CONTENDERS:
                python = sys.executable if contender == "sluice" else str(peers)
                crowds[contender] = _crowd(server, python, contender, requests, processes)
            measures += _measured(requests, crowds)
    with tempfile.TemporaryDirectory() as state, started(_valkey(state, next(ports))) as server:
        steady_s = 5 if options.short else 20
        measures += asyncio.run(_served(server, [next(ports), next(ports)], Path(state), steady_s, options.mix_s))
    results.save("analyst", measures, versions("analyst", ("cashews", "aiocache", "redis")))


# ---- a crowd at once


def _crowd(server: Valkey, python: str, contender: str, requests: int, processes: int) -> dict[str, Any]:
    server.execute("FLUSHALL")
    command = [python, str(HERE / "crowd.py"), contender, server.host, str(server.port), server.password]
    share = [str(requests // processes)]
    crowd = [
        subprocess.Popen(
            [*command, *share], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(processes)
    ]
    for process in crowd:
        assert _line(process) == "ready"
    before = _commands(server)
    for process in crowd:
        _say(process, "go")
    found = [json.loads(_line(process)) for process in crowd]
    commands = _commands(server) - before
    for process in crowd:
        _say(process, "bye")
        process.wait(30)
    return {
        "calls": sum(result["calls"] for result in found),
        "failed": sum(result["failed"] for result in found),
        "answers": len({answer for result in found for answer in result["answers"]}),
        "seconds": sorted(second for result in found for second in result["seconds"]),
        "commands": commands,
    }


def _measured(requests: int, crowds: dict[str, dict[str, Any]]) -> Iterator[results.Measure]:
    ours = CONTENDERS[0]
    assert crowds[ours]["answers"] == crowds[ours]["calls"] == 1 and not crowds[ours]["failed"], crowds[ours]
    wanted = dict.fromkeys(CONTENDERS[1:], 1.0)
    for what in ("calls", "commands"):
        counts = {contender: [float(found[what])] for contender, found in crowds.items()}
        yield results.Measure(f"{KINDS[what]} for {requests:,} requests at once", "less", ours, counts, wanted)
    for share in (0.5, 0.99):
        seconds = {contender: [_percentile(found["seconds"], share)] for contender, found in crowds.items()}
        what = f"p{share * 100:.0f} s of {requests:,} requests at once, a call of 1 s"
        yield results.Measure(what, "less", ours, seconds, wanted)


def _commands(server: Valkey) -> int:
    """Return the commands sent by all connected clients, without those inside scripts."""
    with Redis(host=server.host, port=server.port, password=server.password, decode_responses=True) as redis:
        return sum(int(client["tot-cmds"]) for client in redis.client_list())


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


# ---- cached answers over HTTP


async def _served(
    server: Valkey, ports: list[int], state: Path, steady_s: float, mix_s: float
) -> list[results.Measure]:
    script = Script(text=GOOD, delay_s=1.0)
    async with metrics_service() as metrics, rest(script) as gemini:
        environment = os.environ | {
            "ANALYST_PORT": str(ports[0]),
            "ANALYST_OPS_PORT": str(ports[1]),
            "ANALYST_METRICS_URL": metrics,
            "REDIS_HOST": server.host,
            "REDIS_PORT": str(server.port),
            "REDIS_PASSWORD": server.password,
            "GEMINI_API_KEY": "none",
            "GEMINI_SDK": "genai",
            "GEMINI_ENDPOINT": gemini,
            "GEMINI_CACHE_TTL": str(MIX_TTL_S),
            "GEMINI_RATE_LIMIT": "100",
            "LOG_LEVEL": "warning",
        }
        analyst = await asyncio.create_subprocess_exec(sys.executable, "-m", "analyst", env=environment)
        try:
            await until_ready(ports[1])
            steady = await _steady(ports[0], state, steady_s, psutil.Process(analyst.pid))
            script.calls = 0
            return [*steady, *await _mix(ports, state, mix_s, script)]
        finally:
            analyst.terminate()
            await analyst.wait()


async def _steady(port: int, state: Path, seconds: float, analyst: psutil.Process) -> list[results.Measure]:
    await _load(port, state, ["1h"], 20, 0.5)
    await asyncio.sleep(1.5)  # until the first report is written
    before = sum(analyst.cpu_times()[:2])
    found = (await _load(port, state, ["1h"], RATE, seconds))["200"]
    cpu_ms = 1000 * (sum(analyst.cpu_times()[:2]) - before) / found["count"]
    targets = {"p50": 2.0, "p95": 20.0, "p99": 20.0}
    return [
        results.against(f"{share} ms of cached answers at {RATE}/s", "less", [found[f"{share}_ms"]], target)
        for share, target in targets.items()
    ] + [results.against("CPU ms per cached answer", "less", [cpu_ms], 1.0)]


async def _mix(ports: list[int], state: Path, seconds: float, script: Script) -> list[results.Measure]:
    chance = random.Random(1)
    windows = chance.choices(list(MIX), list(MIX.values()), k=5000)
    before = await _caches(ports[1])
    statuses = await _load(ports[0], state, windows, MIX_RATE, seconds)
    after = await _caches(ports[1])
    counts = {cache: after.get(cache, 0) - before.get(cache, 0) for cache in ("hit", "stale", "miss")}
    total = sum(counts.values())
    errors = sum(found["count"] for status, found in statuses.items() if status != "200")
    return [
        results.against("% hits in a mix of six windows", "more", [100 * counts["hit"] / total], 90.0),
        results.against("requests per call in that mix", "more", [total / max(1, script.calls)], 50.0),
        results.against("errors in that mix", "less", [errors], 0.0),
    ]


async def _load(port: int, state: Path, windows: list[str], rate: float, seconds: float) -> dict[str, Any]:
    texts = state / "windows.txt"
    texts.write_text("\n".join(windows))
    command = [sys.executable, str(HERE.parent / "generator.py"), "--port", str(port), "--path", "/analyze/performance"]
    command += ["--body", '{"window": @}', "--texts", str(texts), "--rate", str(rate), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    statuses: dict[str, Any] = json.loads(output)["statuses"]
    return statuses


async def _caches(ops_port: int) -> dict[str, float]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{ops_port}/metrics") as response:
        found = re.findall(r'sluice_analyst_reports_total\{cache="(\w+)"\} ([\d.]+)', await response.text())
    return {cache: float(count) for cache, count in found}


def _valkey(state: str, port: int) -> Valkey:
    return Valkey(Path(state) / "valkey", port, settings=SETTINGS_FOR_TESTS)


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="5 s of cached answers instead of 20")
    parser.add_argument("--mix-s", type=float, default=60.0, help="seconds of mixed load")
    return parser.parse_args()


if __name__ == "__main__":
    main()
