"""What load tests and benchmarks share: addresses that nobody else has, connections that tell when they are closed."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import results
import watch
from generator import Connection
from system import System
from traffic.addresses import Addresses


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


async def test_connection_closed_between_two_requests__is_heard_of() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        closed = asyncio.Event()

        class Watched(Connection):
            def connection_lost(self, error: Exception | None) -> None:
                super().connection_lost(error)
                closed.set()

        port = server.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(Watched, "127.0.0.1", port)
        assert await connection.ask(b"GET / HTTP/1.1\r\n\r\n") == 200
        async with asyncio.timeout(30):
            await closed.wait()
            with pytest.raises(ConnectionError):
                await connection.ask(b"GET / HTTP/1.1\r\n\r\n")


def test_process_that_ends_meanwhile__is_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(gone.pid)
    gone.wait(30)
    system = System(tmp_path, 0)
    monkeypatch.setattr(System, "processes", lambda _: [process])
    with pytest.raises(AssertionError):
        system.service("metrics")


def test_shares__are_of_the_processors_this_program_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: [0])
    seen = watch.Watch(System(tmp_path, 0))
    seen.looks = [watch.Cpu(0.0, 0.0, 0.0, 0.0), watch.Cpu(10.0, 5.0, 1.0, 3.0)]
    assert seen.busy(0.0) == pytest.approx((0.5, 0.1, 0.7))
    assert len(results.cores()) == results.machine()["cores"]
