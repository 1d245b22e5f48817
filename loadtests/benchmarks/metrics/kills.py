"""Checks exactly-once storage while consumers, PostgreSQL and Redis are killed and events are sent twice.

    python loadtests/benchmarks/metrics/kills.py [--seconds 60] [--rate 5000] [--consumers 3]

A producer journals events and publishes them as inference does. After a third of the time PostgreSQL restarts. After
two thirds Redis is killed and loses the last MiB of its append-only file, as after a host failure: acknowledged
entries are gone and the journal must publish them again. The producer never stops. Exits with 1 unless raw rows, every
width of rollup and distinct events are equal in number, rollups equal the sums of the rows, and Redis did lose entries.
"""

import argparse
import asyncio
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.contracts.events import DEAD_LETTERS, EVENT_FIELD, STREAM, PredictionEvent
from common.http.context import uuid7
from common.journal.journal import Journal
from common.journal.recorder import Recorder, open_recorder
from common.stores.postgres import create_pool
from common.stores.redis import REDIS_ERRORS
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate
from launcher.valkey import Valkey
from metrics.ingest.stream import StreamAdmin
from metrics.storage.database import Database

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from rollup_check import differing_rows  # from the tests

DUPLICATES: Final = 0.05
TICK_S: Final = 0.02
SETTLE_S: Final = 120.0
FORGOTTEN_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 60.0


class Chaos:
    """The servers, the consumers and the events sent to them."""

    def __init__(self, folder: Path, rate: int, consumers: int) -> None:
        ports = free_ports(0, 1)
        self.postgres = Postgres(folder / "postgres", next(ports))
        self.valkey = Valkey(folder / "valkey", next(ports))
        self.folder = folder
        self.rate = rate
        self.wanted = consumers
        self.consumers: list[subprocess.Popen[bytes]] = []
        self.rng = random.Random(7)
        self.registry = CollectorRegistry()
        self.sent = self.duplicated = self.killed = self.forgotten = 0

    def start(self, stopped: ExitStack) -> None:
        for server in (self.postgres, self.valkey):
            stopped.callback(server.kill)
            server.start()
        migrate("metrics", self.postgres.url())
        stopped.callback(self.dismiss)
        self.recruit()

    def dismiss(self) -> None:
        for one in self.consumers:
            one.kill()

    def recruit(self) -> None:
        program = str(Path(__file__).with_name("consumer.py"))
        while len(self.consumers) < self.wanted:
            command = [sys.executable, program, self.postgres.url(), self.valkey.url()]
            self.consumers.append(subprocess.Popen(command))

    def kill_one(self) -> None:
        victim = self.consumers.pop(self.rng.randrange(len(self.consumers)))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.killed += 1
        self.recruit()

    async def run(self, seconds: float) -> bool:
        async with self._redis() as redis:
            async with open_recorder(
                Journal(self.folder / "journal", max_bytes=1 << 30, keep_s=600.0),
                redis,
                when_full="refuse",
                registry=self.registry,
                drain_s=30,
            ) as recorder:
                async with asyncio.TaskGroup() as tasks:
                    upset = tasks.create_task(self._upset(seconds))
                    await self._produce(recorder, redis, seconds)
                    await upset
            return await self._settled(redis)

    def _redis(self) -> Redis:
        return Redis.from_url(
            self.valkey.url(), decode_responses=True, protocol=3, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )

    async def _produce(self, recorder: Recorder, redis: Redis, seconds: float) -> None:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            events = [self._event() for _ in range(int(passed * self.rate) - self.sent)]
            recorder.record(events)
            self.sent += len(events)
            await self._send_again(redis, [one for one in events if self.rng.random() < DUPLICATES])
            await asyncio.sleep(TICK_S)

    async def _send_again(self, redis: Redis, events: list[PredictionEvent]) -> None:
        """Send an event again, like a producer that lost an acknowledgement."""
        try:
            pipeline: Any = redis.pipeline(transaction=False)
            for event in events:
                pipeline.xadd(STREAM, {EVENT_FIELD: event.model_dump_json(exclude_none=True)})
            await pipeline.execute()
            self.duplicated += len(events)
        except REDIS_ERRORS:
            return

    def _event(self) -> PredictionEvent:
        return PredictionEvent(
            id=uuid7(),
            at_us=time.time_ns() // 1000,
            route="/predict",
            outcome="ok",
            request_id="chaos",
            model="m",
            revision="1",
            label=self.rng.choice("PN"),
            score=self.rng.random(),
            latency_us=self.rng.randrange(1, 1_000_000),
            characters=self.rng.randrange(1, 500),
        )

    async def _upset(self, seconds: float) -> None:
        """Restart and kill servers, in threads of `to_thread`: a server ends with the thread that started it."""
        started, restarted = time.monotonic(), 0
        while (passed := time.monotonic() - started) < seconds:
            if passed > seconds / 3 and restarted == 0:
                await asyncio.to_thread(self.postgres.stop)
                await asyncio.to_thread(self.postgres.start)
                restarted = 1
            elif passed > seconds * 2 / 3 and restarted == 1:
                await asyncio.to_thread(self.valkey.kill)
                self.forgotten = self._forget()
                await asyncio.to_thread(self.valkey.start)
                restarted = 2
            else:
                await asyncio.to_thread(self.kill_one)
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))

    def _forget(self) -> int:
        """Truncate the append-only file. Returns the number of acknowledged entries lost."""
        file = max(self.valkey.state.glob("appendonlydir/*.incr.aof"))
        kept = max(0, file.stat().st_size - FORGOTTEN_BYTES)
        with file.open("r+b") as opened:
            opened.seek(kept)
            cut = opened.read()
            opened.truncate(kept)
        return cut.count(b"XADD")

    async def _settled(self, redis: Redis) -> bool:
        maintenance, deadline = StreamAdmin(redis), time.monotonic() + SETTLE_S
        while (await maintenance.backlog()).entries != 0 and time.monotonic() < deadline:  # noqa: ASYNC110  # other processes
            await asyncio.sleep(0.2)
        connection = await asyncpg.connect(self.postgres.url(), server_settings={"search_path": "metrics"})
        try:
            raw = await connection.fetchval("SELECT count(*) FROM prediction")
            distinct = await connection.fetchval("SELECT count(DISTINCT event_id) FROM prediction")
            widths = await connection.fetch("SELECT width_s, sum(n)::bigint FROM rollup GROUP BY 1 ORDER BY 1")
            deadlocks = await connection.fetchval("SELECT sum(deadlocks)::bigint FROM pg_stat_database")
        finally:
            await connection.close()
        found = {
            "sent": self.sent,
            "sent twice": self.duplicated,
            "raw": raw,
            "distinct": distinct,
            **{f"rollups of {width_s} s": n for width_s, n in widths},
            "consumers killed": self.killed,
            "forgotten by Redis": self.forgotten,
            "journal rewound": int(self.registry.get_sample_value("sluice_events_rewinds_total") or 0),
            "deadlocks": deadlocks,
            "dead letters": await redis.xlen(DEAD_LETTERS),
        }
        equal = await self._rollups_are_equal()
        print("| what | |\n|---|---:|")
        for name, value in found.items():
            print(f"| {name} | {value:,} |")
        print(f"| rollups with their histograms are what the rows add up to | {'yes' if equal else 'NO'} |", flush=True)
        is_once = {raw, distinct, *(n for _, n in widths)} == {self.sent}
        forgot = found["forgotten by Redis"] > 0 and found["journal rewound"] > 0
        return is_once and equal and forgot and not found["deadlocks"] and not found["dead letters"]

    async def _rollups_are_equal(self) -> bool:
        async with create_pool(
            self.postgres.url(), schema="metrics", application="chaos", size=1, timeout_s=_TIMEOUT_S
        ) as pool:
            return await differing_rows(Database(pool, _TIMEOUT_S)) == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--consumers", type=int, default=3)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="chaos-metrics-") as folder, ExitStack() as stopped:
        chaos = Chaos(Path(folder), options.rate, options.consumers)
        chaos.start(stopped)
        return 0 if asyncio.run(chaos.run(options.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
