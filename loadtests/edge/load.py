"""Keep-alive clients that send POST /predict under many addresses; prints what they measured as JSON.

load.py PORT SECONDS CONNECTIONS IDENTITIES [REQUESTS_PER_SECOND]
"""

import asyncio
import json
import random
import statistics
import sys
import time
from typing import cast

import uvloop

BODY = b'{"text": "A thoughtful, moving film that stays with you."}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nX-Forwarded-For: " % len(BODY)
)


def request(identity: int) -> bytes:
    address = b"10.%d.%d.%d" % (identity >> 16 & 255, identity >> 8 & 255, identity & 255)
    return HEAD + address + b"\r\n\r\n" + BODY


class Client(asyncio.Protocol):
    """Sends the next request when the answer of the last is whole; with a pace, when it is time."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.buffer = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.load.ready(self)

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.load.next_request())

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or len(buffer) < end + 4 + length(buffer, end):
            self.buffer = buffer
            return
        self.buffer = b""
        self.load.answered(buffer[9:12], time.perf_counter() - self.sent_at)
        self.load.ready(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost += 1


def length(buffer: bytes, end: int) -> int:
    at = buffer.lower().find(b"content-length:", 0, end)
    return int(buffer[at + 15 : buffer.index(b"\r\n", at)])


class Load:
    def __init__(self, identities: int, pace: float) -> None:
        picked = random.Random(1)
        self.requests = [request(picked.randrange(identities)) for _ in range(50_000)]
        self.position = self.lost = 0
        self.statuses: dict[str, int] = {}
        self.latencies: list[float] = []
        self.pace = pace
        self.idle: list[Client] = []

    def next_request(self) -> bytes:
        self.position = (self.position + 1) % len(self.requests)
        return self.requests[self.position]

    def answered(self, status: bytes, seconds: float) -> None:
        name = status.decode()
        self.statuses[name] = self.statuses.get(name, 0) + 1
        self.latencies.append(seconds)

    def ready(self, client: Client) -> None:
        if self.pace:
            self.idle.append(client)
        else:
            client.send()

    async def run_paced(self, seconds: float) -> None:
        started = time.perf_counter()
        for number in range(int(seconds * self.pace)):
            await asyncio.sleep(max(0.0, started + number / self.pace - time.perf_counter()))
            if self.idle:
                self.idle.pop().send()


async def main(port: int, seconds: float, connections: int, identities: int, pace: float = 0.0) -> None:
    loop = asyncio.get_running_loop()
    load = Load(identities, pace)
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(load), "127.0.0.1", port)
    await (load.run_paced(seconds) if pace else asyncio.sleep(seconds))
    elapsed = time.perf_counter() - started
    ordered = sorted(load.latencies)
    result = {
        "requests": len(ordered),
        "per_second": len(ordered) / elapsed,
        "statuses": load.statuses,
        "lost": load.lost,
        "p50_ms": statistics.median(ordered) * 1000 if ordered else None,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000 if ordered else None,
    }
    print(json.dumps(result))


numbers = [float(value) for value in sys.argv[2:]]
uvloop.run(main(int(sys.argv[1]), numbers[0], int(numbers[1]), int(numbers[2]), *numbers[3:]))
