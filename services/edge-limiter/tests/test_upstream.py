import asyncio
import random
import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tls import listening, self_signed

from common.http.server import AppRunner
from common.runtime.readiness import Readiness
from edge_limiter.upstream.client import (
    DNS_TTL_S,
    MAX_IDLE_S,
    SAFE_IDLE_S,
    Resolve,
    UpstreamClient,
    resolve_host,
)
from edge_limiter.upstream.connection import MAX_READ_BYTES
from edge_limiter.upstream.errors import BadGateway, UpstreamOverloaded, UpstreamTimeout

Connect = Callable[..., UpstreamClient]
StartUpstream = Callable[..., Awaitable[str]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CallRaw = Callable[..., Awaitable[UpstreamClient]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Clock:
    """Advances only in tests that set it, so that a busy machine does not age connections."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connect]:
    with ExitStack() as stack:

        def create(
            origin: str,
            *,
            max_in_flight: int = 10,
            idle_s: float = 60.0,
            dial_s: float = 60.0,
            resolve: Resolve = resolve_host,
            clock: Callable[[], float] = clock,
        ) -> UpstreamClient:
            client = UpstreamClient(
                origin,
                max_in_flight=max_in_flight,
                observe=lambda seconds: None,
                connect_timeout_s=dial_s,
                idle_timeout_s=idle_s,
                resolve=resolve,
                clock=clock,
            )
            stack.callback(client.close)
            return client

        yield create


@pytest.fixture
def call_raw(connect: Connect, start_raw_upstream: StartUpstream) -> CallRaw:
    """Call it with a stream handler for a client of its server."""

    async def start(serve: Serve, **options: Any) -> UpstreamClient:
        return connect(await start_raw_upstream(serve), **options)

    return start


async def call(client: UpstreamClient, method: str, body: bytes = b"", timeout_s: float = 60.0) -> int:
    with await client(method, "/x", [], body, timeout_s) as response:
        await response.read()
        return response.status


async def call_at_once(client: UpstreamClient, count: int) -> None:
    """Open `count` connections and leave them idle."""
    assert await asyncio.gather(*(call(client, "GET") for _ in range(count))) == [200] * count


def replies(*responses: bytes, received: list[bytes] | None = None) -> Serve:
    """Serve each connection by answering a head with each response in turn, then read one more head and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in (*responses, b""):
            head = await reader.readuntil(b"\r\n\r\n")
            if received is not None:
                received.append(head)
            writer.write(response)
            await writer.drain()

    return serve


def scripted(received: list[bytes], *words: bytes) -> Serve:
    """Serve each connection by reading a head, then alternating between sending a word and reading what follows."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append((await reader.readuntil(b"\r\n\r\n"))[:4])
        for word in words:
            writer.write(word)
            received.append(await reader.read(100))

    return serve


def counts_connections(ports: list[int]) -> Serve:
    """Answer every head on a connection, and record the client's port for each."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                ports.append(writer.get_extra_info("peername")[1])
                writer.write(OK)

    return serve


# Requests on pooled connections, and retries


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"])
async def test_pooled_connection_that_closes__only_reads_are_sent_again(call_raw: CallRaw, method: str) -> None:
    heads: list[bytes] = []
    client = await call_raw(replies(OK, received=heads))
    assert await call(client, "GET") == 200
    if method == "GET":
        assert await call(client, method) == 200
    else:
        with pytest.raises(BadGateway):
            await call(client, method, b"x")
    sent = ["GET", "GET", "GET"] if method == "GET" else ["GET", method]
    assert [head.split()[0].decode() for head in heads] == sent


@pytest.mark.parametrize(
    ("method", "idle_s", "is_reused"),
    [
        ("DELETE", SAFE_IDLE_S, True),
        ("DELETE", SAFE_IDLE_S + 0.1, False),
        ("GET", MAX_IDLE_S, True),
        ("GET", MAX_IDLE_S + 1, False),
    ],
)
async def test_idle_connection__is_reused_for_writes_only_while_it_cannot_have_been_closed(
    call_raw: CallRaw, clock: Clock, method: str, idle_s: float, is_reused: bool
) -> None:
    ports: list[int] = []
    client = await call_raw(counts_connections(ports))
    await call(client, "GET")
    clock.now_s += idle_s
    await call(client, method)
    assert (ports[0] == ports[1]) == is_reused


async def test_write__long_idle_and_recent_connections__uses_the_recent_one(call_raw: CallRaw, clock: Clock) -> None:
    ports: list[int] = []
    client = await call_raw(counts_connections(ports))
    await call_at_once(client, 2)
    clock.now_s += 2 * SAFE_IDLE_S
    await call(client, "GET")
    await call(client, "DELETE")
    assert ports[2] == ports[3]


async def test_idle_connections__alternate(call_raw: CallRaw) -> None:
    ports: list[int] = []
    client = await call_raw(counts_connections(ports))
    await call_at_once(client, 2)
    for _ in range(4):
        await call(client, "GET")
    assert ports[2:4] == ports[4:6] and len(set(ports)) == len(set(ports[2:4])) == 2


async def test_connections_opened_together__expire_apart_within_a_minute(call_raw: CallRaw, clock: Clock) -> None:
    ports: list[int] = []
    client = await call_raw(counts_connections(ports), max_in_flight=100)
    await call_at_once(client, 100)
    first, reused_after = set(ports), {}
    for age_s in range(10, 70, 10):
        clock.now_s += 10
        ports.clear()
        await call_at_once(client, 100)
        reused_after[age_s] = len(first & set(ports))
    assert reused_after[20] == 100 and 0 < reused_after[50] < reused_after[40] < 100 and reused_after[60] == 0


async def test_upstream_stops_under_low_traffic__no_write_is_lost_or_repeated(
    connect: Connect, free_port: Callable[[], int]
) -> None:
    """Forty clients with up to three seconds between two requests, while one of two replicas drains and stops."""
    handled: Counter[bytes] = Counter()

    async def handle(request: web.Request) -> web.Response:
        handled[await request.read()] += 1
        return web.Response()

    async def start(address: str) -> tuple[AppRunner, Readiness]:
        app = web.Application()
        app.router.add_route("*", "/x", handle)
        readiness = Readiness({})
        runner = AppRunner(app, readiness, drain_s=10.0)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        return runner, readiness

    async def send(number: int) -> None:
        pause_s = random.Random(number)
        while not has_stopped.is_set():
            bodies.append(b"%d" % len(bodies))
            assert await call(client, "POST", bodies[-1]) == 200
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s.uniform(0, 3)):
                    await has_stopped.wait()

    port, bodies, has_stopped = free_port(), list[bytes](), asyncio.Event()
    staying, _ = await start("127.0.0.1")
    stopping, readiness = await start("127.0.0.2")
    client = connect(
        f"http://replicas:{port}",
        resolve=resolves_to("127.0.0.1", "127.0.0.2"),
        clock=time.monotonic,
        max_in_flight=100,
    )
    async with asyncio.TaskGroup() as clients:
        for number in range(40):
            clients.create_task(send(number))
        while len(bodies) < 60:
            await asyncio.sleep(0.01)
        readiness.draining = True
        await stopping.start_draining()
        await stopping.cleanup()
        has_stopped.set()
    await staying.cleanup()
    assert handled == Counter(bodies)


# Bodies and backpressure


@pytest.mark.parametrize(("method", "has_length"), [("POST", True), ("GET", False)])
async def test_request_without_body__has_a_length_if_its_method_expects_one(
    call_raw: CallRaw, method: str, has_length: bool
) -> None:
    heads: list[bytes] = []
    client = await call_raw(replies(OK, received=heads))
    assert await call(client, method) == 200
    assert (b"\r\nContent-Length: 0\r\n" in heads[0]) == has_length


@pytest.mark.parametrize("excess", [0, 1])
async def test_read__response_without_length__is_bounded(call_raw: CallRaw, excess: int) -> None:
    body = bytes(MAX_READ_BYTES + excess)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)

    client = await call_raw(serve)
    with await client("POST", "/x", [], b"", 60.0) as response:
        if excess:
            with pytest.raises(BadGateway):
                await response.read()
        else:
            assert len(await response.read()) == len(body)


async def test_end__completes_a_stream_with_what_has_arrived(call_raw: CallRaw) -> None:
    client = await call_raw(replies(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n"))
    with await client("GET", "/x", [], b"", 60.0) as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"event"
        response.end()
        assert [chunk async for chunk in chunks] == []


async def test_unread_response__pauses_the_upstream(connect: Connect, start_raw_upstream: StartUpstream) -> None:
    """Without backpressure, the client would buffer 64 MB here; the sockets hold a few."""
    sent, size = 0, 1 << 16

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1_000 * size))
        for _ in range(1_000):
            writer.write(b"x" * size)
            await writer.drain()
            sent += 1

    client = connect(await start_raw_upstream(serve))
    with await client("GET", "/x", [], b"", 60.0) as response:
        for _ in range(10_000):
            await asyncio.sleep(0)
        assert sent < 1_000
        assert sum([len(chunk) async for chunk in response.chunks()]) == 1_000 * size


# Malformed responses

HINTS = b"HTTP/1.1 103 Early Hints\r\n"


@pytest.mark.parametrize(
    ("response", "endless"),
    [
        (b"", b""),
        (b"nonsense\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b""),
        (HINTS + b"X: ", b"a" * 100_000),
        (HINTS, b"a" * 100_000),
        (HINTS, b"X: 1\r\n" * 20_000),
        (HINTS + b"\r\n", CONTINUE * 5_000),
    ],
)
async def test_malformed_truncated_or_endless_response__is_a_bad_gateway(
    call_raw: CallRaw, response: bytes, endless: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        with suppress(ConnectionError):
            while endless:
                writer.write(endless)
                await writer.drain()

    client = await call_raw(serve)
    with pytest.raises(BadGateway):
        await call(client, "POST")


# Time limits and overload


async def test_silent_upstream__times_out_and_is_disconnected(connect: Connect, start_upstream: StartUpstream) -> None:
    entered, cancelled, timeout_s = asyncio.Event(), asyncio.Event(), 0.05

    async def hang(_request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return web.Response()

    client = connect(await start_upstream(hang))
    while not entered.is_set():  # on a busy machine the first requests may time out before they arrive
        with pytest.raises(UpstreamTimeout):
            await call(client, "GET", timeout_s=timeout_s)
        timeout_s *= 2
    async with asyncio.timeout(60):
        await cancelled.wait()


async def test_stalled_body__times_out(call_raw: CallRaw) -> None:
    client = await call_raw(replies(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), idle_s=0.05)
    with pytest.raises(UpstreamTimeout):
        await call(client, "GET")


async def test_deadline_while_dialling__times_out(connect: Connect) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    client = connect("http://replicas:1", resolve=resolve)
    with pytest.raises(UpstreamTimeout):
        await call(client, "POST", b"x", timeout_s=0.05)


async def test_requests_over_the_limit__are_rejected(connect: Connect, start_upstream: StartUpstream) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(_request: web.Request) -> web.Response:
        entered.set()
        await leave.wait()
        return web.Response()

    client = connect(await start_upstream(hold), max_in_flight=1)
    first = asyncio.create_task(call(client, "GET"))
    await entered.wait()
    with pytest.raises(UpstreamOverloaded):
        await call(client, "GET")
    leave.set()
    assert await first == 200
    assert await call(client, "GET") == 200


async def test_failed_requests__free_their_capacity(connect: Connect, free_port: Callable[[], int]) -> None:
    client = connect(f"http://127.0.0.1:{free_port()}", max_in_flight=2)
    for _ in range(3):
        with pytest.raises(BadGateway):
            await call(client, "POST", b"x")
    assert client.in_flight == 0


# Addresses


@pytest.fixture
async def replicas(free_port: Callable[[], int]) -> AsyncIterator[tuple[int, Counter[str]]]:
    """A port on which two addresses listen, and the number of connections to each."""
    port, connections = free_port(), Counter[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[writer.get_extra_info("sockname")[0]] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CLOSE)
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(serve, address, port) for address in ("127.0.0.1", "127.0.0.2")]
    yield port, connections
    for server in servers:
        server.close()


def resolves_to(*addresses: str) -> Resolve:
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


async def test_replicas_of_one_name__share_the_load(connect: Connect, replicas: tuple[int, Counter[str]]) -> None:
    port, connections = replicas
    client = connect(f"http://replicas:{port}", resolve=resolves_to("127.0.0.1", "127.0.0.2"))
    assert [await call(client, "GET") for _ in range(10)] == [200] * 10
    assert connections == {"127.0.0.1": 5, "127.0.0.2": 5}


async def test_dead_address__is_skipped(connect: Connect, replicas: tuple[int, Counter[str]]) -> None:
    port, connections = replicas
    client = connect(f"http://replicas:{port}", resolve=resolves_to("127.0.0.3", "127.0.0.2"))
    assert await asyncio.gather(*(call(client, "POST", b"x") for _ in range(9))) == [200] * 9
    assert connections["127.0.0.2"] == 9


async def test_name_without_addresses__is_a_bad_gateway(connect: Connect) -> None:
    client = connect("http://nowhere:1", resolve=resolves_to())
    with pytest.raises(BadGateway):
        await call(client, "GET")


async def test_resolved_addresses__are_cached(
    connect: Connect, replicas: tuple[int, Counter[str]], clock: Clock
) -> None:
    lookups = 0

    async def resolve(_host: str, _port: int) -> list[str]:
        nonlocal lookups
        lookups += 1
        return ["127.0.0.1"]

    client = connect(f"http://replicas:{replicas[0]}", resolve=resolve)
    await asyncio.gather(*(call(client, "GET") for _ in range(9)))
    clock.now_s += DNS_TTL_S - 1
    await call(client, "GET")
    assert lookups == 1
    clock.now_s += 1
    await call(client, "GET")
    assert lookups == 2


async def test_service_that_moved__is_looked_up_again(connect: Connect, replicas: tuple[int, Counter[str]]) -> None:
    found = [["127.0.0.1"], ["127.0.0.3"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        return found.pop()

    client = connect(f"http://replicas:{replicas[0]}", resolve=resolve)
    assert await call(client, "GET") == 200


@pytest.mark.parametrize("hangs", [True, False])
async def test_failing_name_server__is_queried_once_and_last_known_addresses_are_used(
    connect: Connect, replicas: tuple[int, Counter[str]], clock: Clock, hangs: bool
) -> None:
    lookups = 0

    async def resolve(_host: str, _port: int) -> list[str]:
        nonlocal lookups
        lookups += 1
        if lookups > 1:
            await (asyncio.Event().wait() if hangs else asyncio.sleep(0))
            raise OSError("try again later")
        return ["127.0.0.1"]

    client = connect(f"http://replicas:{replicas[0]}", dial_s=6.0, resolve=resolve)
    assert await call(client, "POST", b"x") == 200
    clock.now_s += DNS_TTL_S
    calls = (call(client, "POST", b"x", timeout_s=20.0) for _ in range(9))
    assert await asyncio.gather(*calls) == [200] * 9
    assert lookups == 2


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_tls__certificate_is_verified(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_trusted: bool
) -> None:
    certificate = self_signed(tmp_path, "upstream.test")
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with listening(replies(OK, OK), context) as port:
        client = connect(f"https://upstream.test:{port}", resolve=resolves_to("127.0.0.1"))
        if is_trusted:
            assert [await call(client, "GET") for _ in range(2)] == [200, 200]
        else:
            with pytest.raises(BadGateway):
                await call(client, "GET")


# Expect: 100-continue on new connections


async def test_upstream_that_stops_before_it_accepts__costs_no_request(
    connect: Connect, start_upstream: StartUpstream
) -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(status=200 if await request.read() == b"x" else 400)

    port = int((await start_upstream(read)).rpartition(":")[2])
    with socket.create_server(("127.0.0.2", port)) as listener:
        client = connect(f"http://replicas:{port}", resolve=resolves_to("127.0.0.2", "127.0.0.1"))
        waiting = asyncio.create_task(call(client, "POST", b"x"))
        await asyncio.to_thread(wait_for_connection, listener)
    assert await waiting == 200


def wait_for_connection(listener: socket.socket) -> None:
    """Wait until a connection is queued. Closing the listener then resets it."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    assert poller.poll(60_000)


@pytest.mark.parametrize(
    ("words", "statuses", "received"),
    [
        ([CONTINUE, OK], [200], [b"POST", b"body"]),
        ([b"", OK], [200], [b"POST", b"body"]),  # it ignores the expectation, so the body follows after a second
        ([OK], [200, 200], [b"POST", b"POST"]),  # without the body, the connection cannot be used again
    ],
)
async def test_new_connection__body_follows_100_continue_or_a_pause(
    call_raw: CallRaw, words: list[bytes], statuses: list[int], received: list[bytes]
) -> None:
    read: list[bytes] = []
    client = await call_raw(scripted(read, *words))
    assert [await call(client, "POST", b"body") for _ in statuses] == statuses
    assert [word for word in read if word] == received


@pytest.mark.parametrize(
    ("method", "words", "received"),
    [
        ("POST", [CONTINUE], [b"POST", b"body"]),  # it may have acted on the request
        ("POST", [], [b"POST"] * 3),
        ("GET", [], [b"GET "] * 3),
    ],
)
async def test_connection_that_closes__is_a_bad_gateway_after_three_harmless_attempts(
    call_raw: CallRaw, method: str, words: list[bytes], received: list[bytes]
) -> None:
    read: list[bytes] = []
    client = await call_raw(scripted(read, *words))
    with pytest.raises(BadGateway):
        await call(client, method, b"body" if method == "POST" else b"")
    assert [word for word in read if word] == received
