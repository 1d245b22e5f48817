import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from launcher.valkey import Valkey

REPLICA = Path(__file__).with_name("flight_process.py")
PATIENCE_S = 60.0

StartReplica = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start_replica(valkey: Valkey, redis_url: str) -> AsyncIterator[StartReplica]:
    """Call it for one more process, which asks at once."""
    started: list[Process] = []

    async def start(lease_s: float = 60.0, requests: int = 50) -> Process:
        arguments = [str(REPLICA), str(valkey.port), valkey.password, str(lease_s), str(requests)]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _says(process: Process, line: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while (said := (await process.stdout.readline()).decode().strip()) != line:
            assert said, f"ended before it said {line}"


async def _served(process: Process) -> Counter[str]:
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    counts: dict[str, int] = json.loads(output.decode().splitlines()[-1])
    return Counter(counts)


async def _attempts(valkey: Valkey) -> int:
    """How often the model was asked; each took one slot of the quota."""
    async with Redis.from_url(valkey.url(), decode_responses=True) as redis:
        asked = int(await redis.get("attempts") or 0)
        assert await redis.zcard("analyst:{quota}:log") == asked
    return asked


async def test_three_processes_ask_fifty_times_each__one_attempt(start_replica: StartReplica, valkey: Valkey) -> None:
    replicas = [await start_replica() for _ in range(3)]
    for replica in replicas:
        await _says(replica, "asked")
    valkey.execute("RPUSH", "go", "now")
    served: Counter[str] = sum([await _served(replica) for replica in replicas], Counter())
    assert await _attempts(valkey) == 1
    assert served.total() == 150
    assert {answer.split()[0] for answer in served} == {"report"}


async def test_model_fails__four_attempts_for_all_processes_and_rules_for_everybody(
    start_replica: StartReplica, valkey: Valkey
) -> None:
    replicas = [await start_replica() for _ in range(3)]
    for replica in replicas:
        await _says(replica, "asked")
    valkey.execute("RPUSH", "go", *["503"] * 8)
    served: Counter[str] = sum([await _served(replica) for replica in replicas], Counter())
    assert await _attempts(valkey) == 4
    assert {answer.split()[0] for answer in served} == {"rules"}
    assert served.total() == 150


async def test_leading_process_is_killed__waiters_recover_with_one_more_attempt(
    start_replica: StartReplica, valkey: Valkey
) -> None:
    lease_s = 5.0  # a busy machine pauses for seconds; a lost lease would cost another attempt
    leader = await start_replica(lease_s)
    await _says(leader, "asking")
    waiters = [await start_replica(lease_s) for _ in range(2)]
    for waiter in waiters:
        await _says(waiter, "asked")
    leader.kill()
    await leader.wait()
    valkey.execute("RPUSH", "go", "the dead", "the next")
    served: Counter[str] = sum([await _served(waiter) for waiter in waiters], Counter())
    assert await _attempts(valkey) == 2
    assert served.total() == 100


async def test_thousand_requests_over_four_processes__one_attempt_and_few_commands(
    start_replica: StartReplica, valkey: Valkey
) -> None:
    valkey.execute("CONFIG", "RESETSTAT")
    replicas = [await start_replica(requests=250) for _ in range(4)]
    for replica in replicas:
        await _says(replica, "asked")
    valkey.execute("RPUSH", "go", "now")
    served: Counter[str] = sum([await _served(replica) for replica in replicas], Counter())
    assert await _attempts(valkey) == 1
    assert served.total() == 1000
    assert {answer.split()[0] for answer in served} == {"report"}
    assert 1 < await _commands(valkey) <= 0.5 * 1000


async def _commands(valkey: Valkey) -> int:
    """What the clients sent; commands inside the scripts are not counted."""
    async with Redis.from_url(valkey.url(), decode_responses=True) as redis:
        stats = await redis.info("commandstats")
    counted = ("evalsha", "eval", "script|load", "subscribe", "ping", "hello", "auth", "client|setinfo")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in counted)


async def test_leading_process_stands_still_past_its_lease__one_more_attempt(
    start_replica: StartReplica, valkey: Valkey
) -> None:
    leader = await start_replica(0.5)
    await _says(leader, "asking")
    leader.send_signal(signal.SIGSTOP)
    waiter = await start_replica(0.5)
    await _says(waiter, "asking")
    valkey.execute("RPUSH", "go", "the stopped", "the next")
    served = await _served(waiter)
    leader.send_signal(signal.SIGCONT)
    served += await _served(leader)
    assert await _attempts(valkey) == 2  # one lead, and one for the lease that ended
    assert served.total() == 100
