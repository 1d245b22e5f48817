"""Shared parts of load tests and benchmarks: unique addresses, the generator, process statistics."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import watch
from benchmarks import generator, results
from system import System
from users.addresses import Addresses


def test_workers__share_no_address() -> None:
    first, second = Addresses(0, 2), Addresses(1, 2)
    assert [first.new(), second.new(), first.new()] == ["198.18.0.1", "198.18.0.2", "198.18.0.3"]
    taken = [address for worker in range(3) for address in itertools.islice(iter(Addresses(worker, 3).new, ""), 5000)]
    assert len({*taken}) == 15_000


def test_user_or_worker_too_many__is_refused() -> None:
    addresses = Addresses(0)
    last = [addresses.new() for _ in range((1 << 17) - 2)][-1]
    assert last == "198.19.255.254"
    with pytest.raises(ValueError, match="no address left"):
        addresses.new()
    with pytest.raises(ValueError, match="--expect-workers"):
        Addresses(2, 2)


@asynccontextmanager
async def answering(*, times: int) -> AsyncIterator[int]:
    """Yield the port of a server that answers `times` requests per connection and then closes it."""

    tasks: set[asyncio.Task[Any] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError):  # the client has finished
            for _ in range(times):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(30):
            while unfinished := {task for task in tasks if task and not task.done()}:
                await asyncio.wait(unfinished)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Call it for parsed options of the generator."""
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo", encoding="utf-8")

    def options(port: int, **given: Any) -> list[str]:
        chosen = {"port": port, "path": "/", "body": '{"text": @}', "texts": texts, "connections": 3, **given}
        return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]

    return lambda port, **given: generator.options(options(port, **given))


async def test_generator_that_waits_for_answers__sends_as_many_as_asked(load: Callable[..., Any]) -> None:
    async with answering(times=100) as port:
        found = await generator.run(load(port, requests=50, seconds=60))
    assert found["statuses"][200]["count"] == 50


async def test_generator_that_does_not_wait__sends_at_its_rate_and_counts_none_before_it_settled(
    load: Callable[..., Any],
) -> None:
    async with answering(times=1_000) as port:
        found = await generator.run(load(port, rate=400, seconds=0.5, settle=0.25))
    assert 100 < found["statuses"][200]["count"] < 300


async def test_connection_closed_by_the_server__raises(load: Callable[..., Any]) -> None:
    async with answering(times=1) as port:
        with pytest.raises(ConnectionError):
            await generator.run(load(port, seconds=60))


def test_process_that_has_ended__is_not_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(gone.pid)
    gone.wait(30)
    system = System(tmp_path, 0)
    monkeypatch.setattr(System, "processes", lambda _: [process])
    with pytest.raises(AssertionError):
        system.service("metrics")


def test_shares__are_of_the_processors_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: [0])
    seen = watch.Watch(System(tmp_path, 0))
    seen.looks = [watch.Cpu(0.0, 0.0, 0.0, 0.0), watch.Cpu(10.0, 5.0, 1.0, 3.0)]
    assert seen.busy(0.0) == pytest.approx((0.5, 0.1, 0.7))
    assert len(results.cores()) == results.machine()["cores"]
