"""Sends HTTP requests from a process of its own and prints what came back as JSON; knows no server.

    python loadtests/generator.py --port 8001 --path /predict --body '{"text": @}' --texts FILE --seconds 5

Each `@` in the body is replaced by a text as a JSON string, the next one for each request. Closed: each connection
sends one request after the other. Open (`--rate`): requests start at random moments, so many a second in the mean,
however late the answers are; latency counts from the moment at which a request was due.
"""

import argparse
import asyncio
import itertools
import json
import random
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvloop

PATIENCE_S: Final = 60.0


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._whole = 0
        self._answer: asyncio.Future[int]

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, found, length = head.partition(b"content-length:")
            self._whole = end + 4 + (int(length.partition(b"\r\n")[0]) if found else 0)
        if self._whole and len(self._received) >= self._whole:
            status = int(self._received[9:12])
            self._received, self._whole = b"", 0
            self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))

    async def ask(self, request: bytes) -> int:
        """The status of the answer. Raises ConnectionError, also when the far end has closed since the last one."""
        if self._transport.is_closing():
            raise ConnectionError("closed between two requests")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await self._answer


def requests(options: argparse.Namespace) -> Iterator[bytes]:
    """Endless; every request is made before the clock starts."""
    pieces = options.body.encode().split(b"@")
    made = []
    for number, text in enumerate(options.texts.read_text(encoding="utf-8").splitlines()):
        body = json.dumps(text).encode().join(pieces)
        head = f"POST {options.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{options.header}"
        if options.addresses:
            address = 0xC6120001 + number % options.addresses  # in 198.18.0.0/15, which is set aside for benchmarks
            head += f"X-Forwarded-For: {'.'.join(str(part) for part in address.to_bytes(4, 'big'))}\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return itertools.cycle(made[options.skip % len(made) :] + made[: options.skip % len(made)])


async def closed(connections: list[Connection], options: argparse.Namespace) -> dict[int, list[float]]:
    source, seconds = requests(options), defaultdict[int, list[float]](list)
    left = options.requests or 1 << 60
    end = time.perf_counter() + options.seconds

    async def one_after_the_other(connection: Connection) -> None:
        nonlocal left
        while time.perf_counter() < end and left > 0:
            left -= 1
            started = time.perf_counter()
            status = await connection.ask(next(source))
            seconds[status].append(time.perf_counter() - started)

    await asyncio.gather(*map(one_after_the_other, connections))
    return seconds


async def opened(connections: list[Connection], options: argparse.Namespace) -> dict[int, list[float]]:
    source, seconds, chance = requests(options), defaultdict[int, list[float]](list), random.Random(options.skip)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def one(due: float) -> None:
        connection = await free.get()
        status = await connection.ask(next(source))
        if due >= counted_from:
            seconds[status].append(time.perf_counter() - due)
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        counted_from = due + options.settle
        end = counted_from + options.seconds
        while (due := due + chance.expovariate(options.rate)) < end:
            if (early_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            group.create_task(one(due))
    return seconds


async def run(options: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, "127.0.0.1", options.port))[1] for _ in range(options.connections)
    ]
    cpu_s, started = _cpu_s(), time.perf_counter() + options.settle
    seconds = await (opened if options.rate else closed)(connections, options)
    elapsed_s = options.seconds if options.rate else time.perf_counter() - started
    return {
        "seconds": elapsed_s,
        "cpu": (_cpu_s() - cpu_s) / (elapsed_s + options.settle),
        "statuses": {status: _summary(values) for status, values in sorted(seconds.items())},
    }


def _summary(seconds: list[float]) -> dict[str, float]:
    seconds.sort()
    found = {f"p{share}_ms": 1000 * seconds[len(seconds) * share // 100] for share in (50, 95, 99)}
    return {"count": len(seconds), **found}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--header", default="", help="more header lines, each with its line end")
    parser.add_argument("--addresses", type=int, default=0, help="client addresses to send in X-Forwarded-For")
    parser.add_argument("--texts", type=Path, required=True, help="one text a line")
    parser.add_argument("--skip", type=int, default=0, help="first text, and seed")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--settle", type=float, default=0.0, help="open: seconds before counting starts")
    parser.add_argument("--requests", type=int, default=0, help="stop after this many requests")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as fast as answers come")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(_options()))))
