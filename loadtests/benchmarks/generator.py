"""Sends HTTP requests from a separate process and prints the results as JSON.

    python loadtests/benchmarks/generator.py --port 8001 --path /predict --body '{"text": @}' --texts FILE --seconds 5

Each `@` in the body is replaced by a text as a JSON string, the next one for each request. Closed: each connection
sends one request after the other. Open (`--rate`): requests start at random times with this mean rate, independent of
the responses; latency counts from the time at which a request was due.
"""

import argparse
import asyncio
import functools
import itertools
import json
import random
import resource
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

PATIENCE_S: Final = 60.0


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time. `answered` is called with each status."""

    answered: Callable[[int], None]

    def __init__(self, failed: asyncio.Future[None]) -> None:
        self._failed = failed
        self._received = b""
        self._whole = 0

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
            self.answered(status)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._failed.done():
            self._failed.set_exception(error or ConnectionError("closed"))

    def ask(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()


def requests(options: argparse.Namespace) -> Iterator[bytes]:
    """Yield requests without end. All are built before the clock starts."""
    pieces = options.body.encode().split(b"@")
    made = []
    for number, text in enumerate(options.texts.read_text(encoding="utf-8").splitlines()):
        body = json.dumps(text).encode().join(pieces)
        head = f"POST {options.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{options.header}"
        if options.addresses:
            address = 0xC6120001 + number % options.addresses  # in 198.18.0.0/15, which is reserved for benchmarks
            head += f"X-Forwarded-For: {'.'.join(str(part) for part in address.to_bytes(4, 'big'))}\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return itertools.cycle(made[options.skip % len(made) :] + made[: options.skip % len(made)])


class Load:
    """The base of both kinds of load: the source of requests, and latencies by status."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seconds = defaultdict[int, list[float]](list)
        self.under_way = 0
        self.ended = asyncio.Event()
        self._source = requests(options)

    def ask(self, connection: Connection, due: float, then: Callable[[], None], *, counts: bool = True) -> None:
        """Send the next request, due at that time, and continue after its response."""

        def answered(status: int) -> None:
            if counts:
                self.seconds[status].append(time.perf_counter() - due)
            self.under_way -= 1
            then()

        self.under_way += 1
        connection.answered = answered
        connection.ask(next(self._source))


async def closed(connections: list[Connection], load: Load) -> None:
    left = load.options.requests or 1 << 60
    end = time.perf_counter() + load.options.seconds

    def go_on(connection: Connection) -> None:
        nonlocal left
        if (now := time.perf_counter()) < end and left > 0:
            left -= 1
            load.ask(connection, now, functools.partial(go_on, connection))
        elif not load.under_way:
            load.ended.set()

    for connection in connections:
        go_on(connection)
    await load.ended.wait()


async def opened(connections: list[Connection], load: Load) -> None:
    """Run an open loop. A due request waits for the first free connection if all are busy."""
    free, waiting = deque(connections), deque[float]()
    begin = time.perf_counter()
    counted_from = begin + load.options.settle
    end = counted_from + load.options.seconds

    def go_on(connection: Connection) -> None:
        if waiting:
            ask(connection, waiting.popleft())
        else:
            free.append(connection)
            if not load.under_way:
                load.ended.set()

    def ask(connection: Connection, due: float) -> None:
        load.ask(connection, due, functools.partial(go_on, connection), counts=due >= counted_from)

    for due in arrivals(load.options, begin, end):
        if (early_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(early_s)
        if free:
            ask(free.popleft(), due)
        else:
            waiting.append(due)
    load.ended.clear()
    if load.under_way:
        await load.ended.wait()


def arrivals(options: argparse.Namespace, begin: float, end: float) -> Iterator[float]:
    """Yield random times of a Poisson process, as from many independent clients."""
    chance, due = random.Random(options.skip), begin
    while (due := due + chance.expovariate(options.rate)) < end:
        yield due


async def run(options: argparse.Namespace) -> dict[str, Any]:
    loop, load = asyncio.get_running_loop(), Load(options)
    failed: asyncio.Future[None] = loop.create_future()
    connections = [
        (await loop.create_connection(lambda: Connection(failed), "127.0.0.1", options.port))[1]
        for _ in range(options.connections)
    ]
    cpu_s, started = _cpu_s(), time.perf_counter() + options.settle
    whole: asyncio.Future[None] = asyncio.ensure_future((opened if options.rate else closed)(connections, load))
    try:
        async with asyncio.timeout(options.settle + options.seconds + PATIENCE_S):
            await asyncio.wait([whole, failed], return_when=asyncio.FIRST_COMPLETED)
        (failed if failed.done() else whole).result()
    finally:
        for future in (whole, failed):
            future.cancel()
        for connection in connections:
            connection.close()
    elapsed_s = options.seconds if options.rate else time.perf_counter() - started
    return {
        "seconds": elapsed_s,
        "cpu": (_cpu_s() - cpu_s) / (elapsed_s + options.settle),
        "statuses": {status: _summary(values) for status, values in sorted(load.seconds.items())},
    }


def _summary(seconds: list[float]) -> dict[str, float]:
    seconds.sort()
    found = {f"p{share}_ms": 1000 * seconds[len(seconds) * share // 100] for share in (50, 95, 99)}
    return {"count": len(seconds), **found}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
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
    return parser.parse_args(argv)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(options()))))
