"""Slow clients and idle connections do not hold up normal clients."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from benchmarks.edge import rounds
from benchmarks.edge.edges import create_database, start_edge, working_tree
from benchmarks.edge.proofs.claims import Claim
from benchmarks.edge.testbed import Testbed, testbed

SLOW, IDLE = 500, 5_000
OPEN_FILES: Final = 20_000
MEASURED_S: Final = 8.0
IDLE_FACTOR: Final = 5.0
HEAD: Final = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 192.0.2.%d\r\n"
REQUEST: Final = b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
READ_TIMEOUT_S: Final = 10.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def prove() -> Iterator[Claim]:
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard_limit))
    with testbed() as bed:
        version = working_tree()
        edge = start_edge(bed, version, create_database(bed, version, "slow"), EDGE_RATE_LIMIT="1000")
        yield from asyncio.run(_claims(bed, edge.port))


async def _claims(bed: Testbed, port: int) -> list[Claim]:
    alone_ms = await _p99_ms(bed, port)
    clients = [asyncio.create_task(_send_slowly(port, number)) for number in range(SLOW)]
    await asyncio.sleep(3)
    slow_ms = await _p99_ms(bed, port)
    for task in clients:
        task.cancel()
    await asyncio.wait(clients)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
    idle_ms = await _p99_ms(bed, port)
    answering = sum([await _is_answered(streams) for streams in idle])
    for _, writer in idle:
        writer.close()
    return [
        Claim(
            f"p99 at most doubles with {SLOW} clients that send one byte a second",
            slow_ms <= 2 * alone_ms,
            f"{alone_ms:.1f} ms without, {slow_ms:.1f} ms with them",
        ),
        Claim(
            f"p99 stays below {IDLE_FACTOR:g} times with {IDLE:,} idle connections",
            idle_ms < IDLE_FACTOR * alone_ms,
            f"{alone_ms:.1f} ms without, {idle_ms:.1f} ms with them",
        ),
        Claim(f"all {IDLE:,} idle connections still answer", answering == IDLE, f"{answering:,}"),
    ]


async def _p99_ms(bed: Testbed, port: int) -> float:
    arguments = (bed.folder, port, MEASURED_S, rounds.PACED_CONNECTIONS, rounds.CLIENTS, rounds.PACED_RATE)
    result = await asyncio.to_thread(rounds.load, *arguments)
    return float(result["statuses"]["200"]["p99_ms"])


async def _send_slowly(port: int, number: int) -> None:
    """Send one byte a second, in the head or in the body; reconnect whenever the edge closes the connection."""
    await asyncio.sleep(number / SLOW)  # spread over the second
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        in_body = b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n" if number % 2 else b""
        answered = asyncio.create_task(reader.read(1))
        try:
            writer.write(HEAD % (number % 250) + in_body)
            while not answered.done():
                writer.write(b"x")
                await asyncio.wait([answered], timeout=1)
        except ConnectionError:
            pass
        finally:
            answered.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await answered
            writer.close()


async def _is_answered(streams: Streams) -> bool:
    reader, writer = streams
    writer.write(REQUEST)
    async with asyncio.timeout(READ_TIMEOUT_S):
        return (await reader.readline()).startswith(b"HTTP/1.1 404")
