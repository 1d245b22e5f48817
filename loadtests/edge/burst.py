"""Bursts at two fresh edges on a busy machine: each must admit exactly the limit, although nothing is down.

    python loadtests/edge/burst.py [--hogs 4] [--bursts 20]

Each burst is 100 requests from a new address, half of them to each edge, with a limit of 60. Every burst gets
two edges that have just started. The hogs are processes that keep the CPUs busy. Prints JSON, and exits with 1 unless
every burst admitted 60.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started

LIMIT, REQUESTS, EDGES = 60, 100, 2
START_S, ANSWER_S = 120.0, 60.0


@contextmanager
def _process(command: list[str], **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def _serve_upstream(port: int) -> web.AppRunner:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


def _environment(dsn: str, upstream: int, port: int, ops_port: int, folder: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": dsn,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": "1",
        "EDGE_PORT": str(port),
        "EDGE_OPS_PORT": str(ops_port),
        "EDGE_RATE_LIMIT": str(LIMIT),
        "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
        "EDGE_MAX_TIMEOUT_S": str(ANSWER_S),
        "EDGE_TIMEOUT_S": str(ANSWER_S),
        "EVENTS_HASH_KEY": "burst",
        "EVENTS_JOURNAL_DIR": str(folder / str(port)),
        **{f"EDGE_UPSTREAM_{name}": f"http://127.0.0.1:{upstream}" for name in ("INFERENCE", "METRICS", "ANALYST")},
    }


async def _until_exact(http: aiohttp.ClientSession, port: int, ops_port: int) -> None:
    async with asyncio.timeout(START_S):
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(f"http://127.0.0.1:{ops_port}/metrics") as response:
                    is_exact = "sluice_edge_store_up 1.0" in await response.text()
                async with http.get(f"http://127.0.0.1:{port}/"):
                    if is_exact:
                        return
            await asyncio.sleep(0.05)


async def _burst(http: aiohttp.ClientSession, ports: list[int], address: str) -> int:
    async def post(port: int) -> int:
        headers = {"X-Forwarded-For": address}
        async with http.post(f"http://127.0.0.1:{port}/predict", json={"text": "fine"}, headers=headers) as response:
            return response.status

    statuses = await asyncio.gather(*(post(ports[number % EDGES]) for number in range(REQUESTS)))
    if unexpected := set(statuses) - {200, 429}:
        raise SystemExit(f"unexpected statuses: {unexpected}")
    return statuses.count(200)


async def run(hogs: int, bursts: int, folder: Path) -> list[int]:
    database_port, upstream_port, *edge_ports = itertools.islice(free_ports(), 2 + 2 * EDGES)
    admitted = []
    with ExitStack() as stack:
        server = stack.enter_context(started(Postgres(folder / "postgres", database_port)))
        migrate("edge_limiter", server.url())
        upstream = await _serve_upstream(upstream_port)
        for _ in range(hogs):
            stack.enter_context(_process([sys.executable, "-c", "while True: pass"]))
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(ANSWER_S)
        ) as http:
            for number in range(bursts):
                with ExitStack() as edges:
                    listening = edge_ports[:EDGES]
                    for port, ops_port in zip(listening, edge_ports[EDGES:], strict=True):
                        environment = _environment(server.url(), upstream_port, port, ops_port, folder)
                        edges.enter_context(_process([sys.executable, "-m", "edge_limiter"], **environment))
                    for port, ops_port in zip(listening, edge_ports[EDGES:], strict=True):
                        await _until_exact(http, port, ops_port)
                    admitted.append(await _burst(http, listening, f"198.51.100.{number + 1}"))
        await upstream.cleanup()
    return admitted


def main() -> int:
    parser = argparse.ArgumentParser(description="Exactness of two fresh edges on a busy machine.")
    parser.add_argument("--hogs", type=int, default=4)
    parser.add_argument("--bursts", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        admitted = asyncio.run(run(options.hogs, options.bursts, Path(folder)))
    print(json.dumps({"hogs": options.hogs, "limit": LIMIT, "admitted": admitted}))
    return int(any(count != LIMIT for count in admitted))


if __name__ == "__main__":
    sys.exit(main())
