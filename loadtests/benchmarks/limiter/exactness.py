"""Compares replica processes with an oracle: over-admissions and wrong rejections, in database time.

    python loadtests/benchmarks/limiter/exactness.py [--seconds 60] [--replicas 4]

Each replica is a process with its own connection. Meanwhile the database's clock jumps, connections are killed
and the server restarts. A statement whose answer was lost may have been charged, so it is counted as "unknown".
"""

import argparse
import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import structlog

from edge_limiter.ratelimit.batcher import Query, StoreUnavailable
from edge_limiter.ratelimit.postgres import PostgresLog
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started

LIMIT, WINDOW_S, KEYS = 9, 2, 6
WINDOW_US = WINDOW_S * 1_000_000
CLOCK = """
CREATE TABLE edge.clock (ahead_us bigint NOT NULL); INSERT INTO edge.clock VALUES (0);
CREATE OR REPLACE FUNCTION edge.now_us() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + (SELECT ahead_us FROM edge.clock) $$;
CREATE TABLE edge.seen (id bigserial, key bytea, at_us bigint, wanted int, cost int, admitted int);
CREATE FUNCTION edge.ask() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('asked.k' || encode(NEW.key, 'hex'), NEW.admitted::text, true);
  RETURN NEW;
END $$;
CREATE FUNCTION edge.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO edge.seen (key, at_us, wanted, cost, admitted)
  VALUES (NEW.key, NEW.at_us, current_setting('asked.k' || encode(NEW.key, 'hex'))::int, NEW.cost, NEW.admitted);
  RETURN NULL;
END $$;
CREATE TRIGGER ask BEFORE INSERT ON edge.admissions FOR EACH ROW EXECUTE FUNCTION edge.ask();
CREATE TRIGGER remember AFTER INSERT OR UPDATE ON edge.admissions FOR EACH ROW EXECUTE FUNCTION edge.remember();
"""
"""`seen` records each committed try, even if its response was lost: the requests wanted (at most what an empty
window would admit) and those admitted. Rows are numbered under the lock of the key's row, so they are in order."""


async def replica(dsn: str, seconds: float, seed: int) -> None:
    """Request random batches until the time is up, and print the results."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    picked = random.Random(seed)
    log = PostgresLog(dsn, durable=False)
    task = asyncio.create_task(log.run())
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        queries = [
            Query(b"k%d" % key, picked.randint(1, 4), picked.choice([1, 1, 1, 2, 5]), LIMIT, WINDOW_S)
            for key in picked.sample(range(KEYS), picked.randint(1, KEYS))
        ]
        try:
            results = await log.decide(queries)
        except StoreUnavailable as error:
            counts[type(error.__cause__).__name__ if error.__cause__ else "away"] += 1
            await asyncio.sleep(0.005)
            continue
        for query, result in zip(queries, results, strict=True):
            counts["asked"] += query.requests
            counts["admitted"] += result.admitted
        await asyncio.sleep(picked.random() * 0.01)
    task.cancel()
    await asyncio.wait([task])
    print(json.dumps(counts))


async def disturb(server: Postgres, seconds: float, picked: random.Random) -> Counter[str]:
    """Jump the clock, kill connections, restart the server."""
    done: Counter[str] = Counter()
    started = time.monotonic()
    restart_at = [seconds * part for part in (0.35, 0.7)]
    while (now := time.monotonic() - started) < seconds or restart_at:  # a restart may take long on a busy machine
        await asyncio.sleep(picked.uniform(0.05, 0.25))
        if restart_at and now > restart_at[0]:
            restart_at.pop(0)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            done["restarts"] += 1
            continue
        connection = await asyncpg.connect(server.url())
        if picked.random() < 0.5:
            jump_us = picked.randint(-900_000, 1_500_000)
            await connection.execute("UPDATE edge.clock SET ahead_us = ahead_us + $1", jump_us)
            done["clock jumps"] += 1
        else:
            done["killed connections"] += await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'edge-limiter'"
            )
        await connection.close()
    return done


async def check(dsn: str) -> dict[str, int]:
    """Compare what the database committed with the oracle."""
    connection = await asyncpg.connect(dsn)
    tries: dict[bytes, list[Try]] = defaultdict(list)
    for key, *values in await connection.fetch("SELECT key, at_us, wanted, cost, admitted FROM edge.seen ORDER BY id"):
        tries[key].append(Try(*values))
    deadlocks = await connection.fetchval("SELECT sum(deadlocks) FROM pg_stat_database")
    await connection.close()
    wrong: Counter[str] = Counter({"windows over the limit": 0, "refused with room": 0, "clock decreased": 0})
    for of_key in tries.values():
        wrong.update(replay(of_key))
    committed = sum(one.cost * one.admitted for of_key in tries.values() for one in of_key)
    checked = sum(map(len, tries.values()))
    return {"tries checked": checked, "committed units": committed, **wrong, "deadlocks": int(deadlocks or 0)}


class Try(NamedTuple):
    """`wanted` requests of one key at a database time, `cost` units each, and the number admitted."""

    at_us: int
    wanted: int
    cost: int
    admitted: int


def replay(tries: list[Try]) -> Counter[str]:
    """The brute-force oracle: replay the tries of one key in order, independently of the SQL."""
    wrong: Counter[str] = Counter()
    charged: list[int] = []
    for before, one in zip([tries[0], *tries], tries, strict=False):
        wrong["clock decreased"] += one.at_us < before.at_us
        room = LIMIT - sum(at > one.at_us - WINDOW_US for at in charged)
        wrong["refused with room"] += one.admitted < min(one.wanted, room // one.cost)
        charged += [one.at_us] * (one.admitted * one.cost)
        wrong["windows over the limit"] += sum(one.at_us - WINDOW_US < at <= one.at_us for at in charged) > LIMIT
    return wrong


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)


async def run(seconds: float, replicas: int, folder: Path) -> dict[str, Any]:
    with started(Postgres(folder / "postgres", next(free_ports(0, 1)))) as server:
        migrate("edge_limiter", server.url())
        connection = await asyncpg.connect(server.url())
        await connection.execute(CLOCK)
        await connection.close()
        command = [sys.executable, __file__, "--replica", server.url(), "--seconds", str(seconds), "--seed"]
        processes = [_start([*command, str(number)]) for number in range(replicas)]
        disturbed = await disturb(server, seconds, random.Random(7))
        outputs = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
        totals: Counter[str] = Counter()
        for output in outputs:
            totals.update(output)
        return {**totals, **disturbed, **await check(server.url())}


def main() -> int:
    parser = argparse.ArgumentParser(description="Exactness of the limiter under disturbance.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--replica", metavar="DSN", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replica:
        asyncio.run(replica(options.replica, options.seconds, options.seed))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(options.seconds, options.replicas, Path(folder)))
    print(json.dumps(result, indent=2))
    wrong = ("windows over the limit", "refused with room", "clock decreased", "deadlocks")
    return int(any(result[name] for name in wrong) or not result["tries checked"])


if __name__ == "__main__":
    sys.exit(main())
