"""Killed services under load, a killed launcher, and two edges that share one exact limit."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import psutil
from system import System, until_exact

from launcher.testing import until_ready

StartSystem = Callable[..., System]
FAILURES = {502, 503, 504, None}  # None: the connection broke
LOAD_CLIENTS = 8
KILL_ORDER = ("inference", "metrics", "edge_limiter")
PLACES = {"edge_limiter": 0, "inference": 1, "metrics": 2}


class Load:
    """Clients that send one request after another until `stop`. `outcomes` maps request ids to statuses."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stop = asyncio.Event()
        self.outcomes: dict[str, int | None] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(LOAD_CLIENTS):
                group.create_task(self._client(number))

    def stop(self) -> None:
        self._stop.set()

    async def answered(self, more: int) -> None:
        """Wait until `more` further requests were answered with 200."""
        target = self.statuses()[200] + more
        while self.statuses()[200] < target:
            await asyncio.sleep(0.02)

    def statuses(self) -> Counter[int | None]:
        return Counter(self.outcomes.values())

    async def _client(self, number: int) -> None:
        random_ = random.Random(number)
        async with aiohttp.ClientSession(self._system.url) as session:
            while not self._stop.is_set():
                request_id = f"load-{uuid.UUID(int=random_.getrandbits(128))}"
                self.outcomes[request_id] = await self._one(session, request_id, random_.randrange(1_000_000))

    async def _one(self, session: aiohttp.ClientSession, request_id: str, salt: int) -> int | None:
        address = f"203.0.113.{salt % 250}"
        headers = {"X-Request-ID": request_id, "X-Forwarded-For": address}
        try:
            async with session.post("/predict", json={"text": f"good film {salt}"}, headers=headers) as response:
                await response.read()
                return response.status
        except aiohttp.ClientConnectorError:  # not listening: don't spin
            await asyncio.sleep(0.05)
            return None
        except aiohttp.ClientError:
            return None


async def recorded(system: System) -> list[tuple[str, str, str]]:
    """Return (event id, request id, outcome) of every prediction in PostgreSQL."""
    connection = await system.database()
    try:
        rows = await connection.fetch("SELECT event_id::text, request_id, outcome FROM metrics.prediction")
    finally:
        await connection.close()
    return [tuple(row) for row in rows]


async def test_services_killed_under_load__no_answered_prediction_is_lost(start_system: StartSystem) -> None:
    system = await asyncio.to_thread(start_system, EDGE_RATE_LIMIT="1000", EDGE_RATE_WINDOW_S="1")
    load = Load(system)
    running = asyncio.create_task(load.run())
    await load.answered(100)
    for package in KILL_ORDER:
        system.service(package).kill()
        await system.ready(PLACES[package])
        await load.answered(100)
    load.stop()
    await running

    answered = {request_id for request_id, status in load.outcomes.items() if status == 200}
    async with asyncio.timeout(60):
        while missing := answered - {request_id for _, request_id, _ in await recorded(system)}:
            await asyncio.sleep(0.1)
    rows = await recorded(system)
    assert not missing
    assert len({event_id for event_id, _, _ in rows}) == len(rows)
    for _, request_id, outcome in rows:
        status = load.outcomes[request_id]
        assert status == 200 or status in FAILURES, (request_id, outcome, status)
    ok = sum(outcome == "ok" for _, _, outcome in rows)
    async with aiohttp.ClientSession(system.url) as session, session.get("/metrics/count") as response:
        assert (await response.json())["count"] == ok
    assert set(load.statuses()) <= {200, *FAILURES}


async def test_stopping_edge__answers_on_a_connection_just_opened(system: System) -> None:
    answer = b""
    for _ in range(5):  # it answers for two seconds, and a busy machine may stall that long
        with suppress(OSError, aiohttp.ClientError):
            answer = await _answer_while_stopping(system)
        await system.ready(PLACES["edge_limiter"])
        if answer:
            break
    assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()


async def _answer_while_stopping(system: System) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port_base)
    system.service("edge_limiter").terminate()
    try:
        async with aiohttp.ClientSession(system.ops_url(PLACES["edge_limiter"])) as session, asyncio.timeout(60):
            while (await session.get("/readyz")).status == 200:
                await asyncio.sleep(0.01)
            writer.write(b"GET / HTTP/1.1\r\nHost: sluice\r\n\r\n")
            return await reader.read()
    finally:
        writer.close()


async def test_launcher_killed__nothing_is_left_and_the_count_survives(start_system: StartSystem) -> None:
    system = await asyncio.to_thread(start_system)
    async with aiohttp.ClientSession(system.url) as session:
        for _ in range(3):
            async with session.post("/predict", json={"text": "lovely"}) as response:
                assert response.status == 200
    assert system.process is not None
    children = system.processes()
    os.kill(system.process.pid, signal.SIGKILL)
    system.process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 60)
    assert alive == []

    await asyncio.to_thread(system.start)
    async with asyncio.timeout(60), aiohttp.ClientSession(system.url) as session:
        while True:
            async with session.get("/metrics/count") as response:
                if response.status == 200 and (await response.json())["count"] == 3:
                    break
            await asyncio.sleep(0.05)


async def test_two_edges_on_one_database__still_admit_exactly_sixty(
    system: System, free_port: Callable[[], int]
) -> None:
    port, ops_port = free_port(), free_port()
    environment = system.service("edge_limiter").environ()
    environment |= {"EDGE_PORT": str(port), "EDGE_OPS_PORT": str(ops_port)}
    second = subprocess.Popen([sys.executable, "-m", "edge_limiter"], env=environment, stdout=subprocess.DEVNULL)
    try:
        await until_ready(ops_port)
        for ops_url in (system.ops_url(PLACES["edge_limiter"]), f"http://127.0.0.1:{ops_port}"):
            await asyncio.to_thread(until_exact, ops_url)
        urls = [system.url, f"http://127.0.0.1:{port}"]
        headers = {"X-Forwarded-For": "198.51.100.60"}
        async with aiohttp.ClientSession(headers=headers) as session:
            statuses = await asyncio.gather(*(_status(session, urls[n % 2]) for n in range(100)))
        assert Counter(statuses) == {200: 60, 429: 40}
    finally:
        second.terminate()
        second.wait(30)


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(f"{url}/predict", json={"text": "fine"}) as response:
        await response.read()
        return response.status
