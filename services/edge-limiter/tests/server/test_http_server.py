"""The HTTP server over real sockets, with a handler that answers with the size of the body."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from edge_limiter.server.budget import Budget
from edge_limiter.server.http_server import HttpServer
from edge_limiter.server.request import BadRequest, Request
from edge_limiter.server.response import ResponseWriter

POST = b"POST /predict HTTP/1.1\r\nHost: edge\r\n"
GATE = b"POST /gate HTTP/1.1\r\nHost: edge\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"


@dataclass
class Site:
    """A server on a free port. Requests for /gate and /stream wait for `gate`; `padding` makes responses longer."""

    memory: Budget = field(default_factory=lambda: Budget("memory", 1 << 30))
    max_connections: int = 200
    padding: bytes = b""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Request] = field(default_factory=list)
    cancelled: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    server: HttpServer = field(init=False)
    port: int = field(init=False)

    async def start(self) -> None:
        connections = Budget("connections", self.max_connections)
        self.server = HttpServer(self.handle, connections=connections, memory=self.memory, client_of=str.encode)
        listener = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0)
        self.stack.callback(listener.close)
        self.stack.push_async_callback(self.server.shutdown, 1)
        self.port = listener.sockets[0].getsockname()[1]

    async def handle(self, request: Request, response: ResponseWriter) -> None:
        self.seen.append(request)
        try:
            if request.target == "/stream":
                response.start(200, [], None)
            if request.target in ("/gate", "/stream"):
                await self.gate.wait()
            if response.has_started:
                response.end()
                return
            if request.error is not None:
                raise request.error
            body = b"" if request.target == "/unread" else await request.read(1 << 20)
            response.send(200, [], b"%d" % len(body) + self.padding)
        except BadRequest as error:
            response.send(error.status, [], b"", close=True)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def connect(
        self, data: bytes = b"", address: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        self.stack.callback(writer.close)
        writer.write(data)
        return reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Return everything that the server sends in response to `data` until it closes the connection."""
        reader, _ = await self.connect(data)
        async with asyncio.timeout(10):
            return await reader.read()

    async def received(self, count: int) -> None:
        await until(lambda: self.server.received_bytes >= count)

    def advance(self, seconds: float) -> None:
        """Sweep as if so much time had passed."""
        self.server.sweep(asyncio.get_running_loop().time() + seconds)


OpenSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def open_site() -> AsyncIterator[OpenSite]:
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> Site:
            site = Site(stack=stack, **options)  # type: ignore[arg-type]  # the dataclass checks the names
            await site.start()
            return site

        yield start


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def status_of(reader: asyncio.StreamReader) -> int:
    """Read one response with a Content-Length and return its status."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split(b" ")[1])


# how long a client may take


async def test_head__not_complete_in_time__is_408(open_site: OpenSite) -> None:
    site = await open_site()
    reader, _ = await site.connect(POST[:20])
    await site.received(20)
    site.advance(14)
    site.advance(16)
    assert await status_of(reader) == 408
    assert await reader.read() == b""


async def test_head_behind_a_request_in_progress__is_not_late(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect(GATE + EMPTY + POST[:20])
    await site.received(len(GATE + EMPTY) + 20)
    site.advance(100)
    site.gate.set()
    assert await status_of(reader) == 200
    writer.write(POST[20:] + EMPTY)
    assert await status_of(reader) == 200


CHUNKED_POST = POST + b"Transfer-Encoding: chunked\r\n\r\n"


async def test_bytes_behind_a_chunked_request__end_the_connection(open_site: OpenSite) -> None:
    site = await open_site()
    reader, _ = await site.connect(CHUNKED_POST + b"1\r\na\r\n0\r\n\r\n" + POST[:20])
    assert await status_of(reader) == 200
    async with asyncio.timeout(10):
        assert await reader.read() == b""


@pytest.mark.parametrize("trailer", [b"X-Forwarded-For: 192.0.2.6", b"X-API-Key: stolen", b"Host: elsewhere"])
async def test_trailer__never_reaches_the_next_request(open_site: OpenSite, trailer: bytes) -> None:
    site = await open_site()
    reader, writer = await site.connect(CHUNKED_POST + b"1\r\na\r\n0\r\n" + trailer + b"\r\n\r\n")
    assert await status_of(reader) == 200
    with suppress(ConnectionError):
        writer.write(POST + EMPTY)
        await reader.read()
    value = trailer.partition(b": ")[2].decode()
    assert all(value not in request.fields.values() and request.error is None for request in site.seen)


@pytest.mark.parametrize("cut", range(1, 40))
async def test_pipelined_requests__are_read_alike_wherever_packets_are_cut(open_site: OpenSite, cut: int) -> None:
    site = await open_site()
    first = POST + b"Content-Length: 3\r\n\r\nabc"
    second = b"POST /second HTTP/1.1\r\nHost: edge\r\nX-API-Key: good\r\nContent-Length: 6\r\n\r\n\r\n{}\r\n"
    third = b"GET /third HTTP/1.1\r\nHost: edge\r\nX-Other: 1\r\n\r\n"
    whole = first + second + third
    reader, writer = await site.connect()
    for start in range(0, len(whole), cut):
        writer.write(whole[start : start + cut])
        await site.received(min(len(whole), start + cut))
    assert [await status_of(reader) for _ in range(3)] == [200] * 3
    assert [request.target for request in site.seen] == ["/predict", "/second", "/third"]
    assert (site.seen[1].fields["x-api-key"], site.seen[2].fields["x-other"]) == ("good", "1")
    assert await site.seen[1].read(100) == b"\r\n{}\r\n"


async def test_absolute_target_without_host__is_answered(open_site: OpenSite) -> None:
    site = await open_site()
    assert (await site.exchange(b"GET http://edge/models HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_drain__waits_for_a_client_that_still_reads(open_site: OpenSite) -> None:
    site = await open_site(padding=b"x" * 6_000_000)
    reader, _ = await site.connect(POST + b"Connection: close\r\n" + EMPTY)
    await until(lambda: site.seen and not site.server.in_flight)
    draining = asyncio.create_task(site.server.shutdown(10))
    async with asyncio.timeout(10):
        assert len(await reader.read()) > 6_000_000
        await draining


async def test_idle_connection__is_closed_after_the_keep_alive_time(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect(POST + EMPTY)
    assert await status_of(reader) == 200
    site.advance(74)
    writer.write(POST + EMPTY)
    assert await status_of(reader) == 200
    site.advance(76)
    assert await reader.read() == b""


async def test_client_that_stops_reading__is_closed_after_the_send_time(open_site: OpenSite) -> None:
    site = await open_site(padding=b"x" * (32 << 20))
    await site.connect(POST + EMPTY)
    await until(lambda: site.memory.taken)
    site.advance(59)
    assert site.server.connections
    site.advance(61)
    await until(lambda: not site.server.connections)


async def test_sweep__one_failing_connection__still_checks_the_others(open_site: OpenSite) -> None:
    site = await open_site()
    for _ in range(2):
        await site.connect(POST[:20])
    await site.received(40)
    for connection in site.server.connections[:1]:
        del connection._stage_started  # type: ignore[attr-defined]
    with capture_logs() as logs:
        site.advance(16)
    await until(lambda: len(site.seen) == 1)
    assert [line["event"] for line in logs] == ["connection check failed"]


@pytest.mark.parametrize(
    ("sent", "after_s", "status"), [(100, 14, 200), (100, 17, 408), (2_000, 34, 200), (2_000, 36, 408)]
)
async def test_body__may_take_15_s_and_a_second_for_each_100_bytes(
    open_site: OpenSite, sent: int, after_s: int, status: int
) -> None:
    site = await open_site()
    reader, writer = await site.connect(POST + b"Content-Length: 9000\r\n\r\n" + b"x" * sent)
    await until(lambda: site.seen and site.seen[0].content.total_bytes == sent)
    site.advance(after_s)
    writer.write(b"x" * (9_000 - sent))
    assert await status_of(reader) == status


async def test_slow_clients__do_not_delay_others(open_site: OpenSite) -> None:
    site = await open_site(max_connections=1_000)
    slow = [await site.connect(POST + (b"Content-Length: 100\r\n\r\n" if n % 2 else b"")) for n in range(100)]
    reader, writer = await site.connect()
    for _ in range(20):
        writer.write(POST + b"Content-Length: 2\r\n\r\nab")
        assert await status_of(reader) == 200
    await until(lambda: len(site.server.connections) == 101)
    site.advance(16)
    assert {await status_of(reader) for reader, _ in slow} == {408}


# reading and reusing connections


async def test_connection__is_reused(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect()
    for body in (b"", b"abc", b"x" * 300_000):
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert await status_of(reader) == 200
    writer.write(POST + b"Connection: close\r\n" + EMPTY)
    assert await status_of(reader) == 200
    assert await reader.read() == b""


async def test_small_unread_body__is_discarded_and_the_connection_reused(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect(POST.replace(b"/predict", b"/unread") + b"Content-Length: 5\r\n\r\nab")
    assert await status_of(reader) == 200
    writer.write(b"cde" + POST + EMPTY)
    assert await status_of(reader) == 200


async def test_large_unread_body__closes_the_connection_after_the_response(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect(POST.replace(b"/predict", b"/unread") + b"Content-Length: 900000\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Connection: close" in head
    writer.write(b"x" * 900_000)
    await writer.drain()
    assert await reader.read() == b"0"


async def test_client_that_sends_without_end_after_a_refusal__is_cut_off(open_site: OpenSite) -> None:
    site = await open_site()
    _, writer = await site.connect(b"\0\r\n\r\n")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(20):
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
    await until(lambda: not site.server.connections)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_expect_continue__interim_response_only_for_http_1_1(open_site: OpenSite, version: bytes) -> None:
    site = await open_site()
    head = b"POST / HTTP/%b\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % version
    reader, writer = await site.connect(head)
    if version == b"1.1":
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    else:
        await until(lambda: site.seen and site.seen[0].on_first_wait is None)
    writer.write(b"12")
    assert await status_of(reader) == 200


async def test_http_1_0__closes_the_connection(open_site: OpenSite) -> None:
    site = await open_site()
    response = await site.exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200") and b"Connection: close" in response


async def test_absolute_form__authority_is_dropped(open_site: OpenSite) -> None:
    site = await open_site()
    targets = {
        b"http://edge/a?b=c": "/a?b=c",
        b"HTTP://EDGE/a": "/a",
        b"https://edge": "/",
        b"http://edge?b": "/?b",
    }
    for target in targets:
        request = b"GET %b HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n" % target
        assert (await site.exchange(request)).startswith(b"HTTP/1.1 200")
    assert [request.target for request in site.seen] == list(targets.values())
    assert (await site.exchange(b"GET http://other/ HTTP/1.1\r\nHost: edge\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_client_that_does_not_read__gets_no_second_response(open_site: OpenSite) -> None:
    site = await open_site(padding=b"x" * (32 << 20))
    reader, _ = await site.connect((POST + EMPTY) * 2)
    await until(lambda: site.memory.taken)
    assert len(site.seen) == 1
    assert [await status_of(reader) for _ in range(2)] == [200, 200]


async def test_small_chunks_of_a_large_body__are_not_overhead(open_site: OpenSite) -> None:
    site = await open_site()
    chunks = b"1\r\nx\r\n" * 30_000
    body = b"80000\r\n" + b"x" * 0x80000 + b"\r\n" + chunks + b"0\r\n\r\n"
    reader, _ = await site.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert await status_of(reader) == 200


# connections and memory


async def test_connections_over_the_maximum__are_closed_at_once(open_site: OpenSite) -> None:
    site = await open_site(max_connections=1)
    _, first = await site.connect()
    await until(lambda: site.server.connections)
    with capture_logs() as logs:
        for _ in range(3):
            reader, _ = await site.connect()
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
    assert [line["reason"] for line in logs] == ["full"]
    first.close()
    await until(lambda: not site.server.connections)
    reader, _ = await site.connect(POST + EMPTY)
    assert await status_of(reader) == 200


async def test_partial_heads__count_until_they_are_answered_or_gone(open_site: OpenSite) -> None:
    site = await open_site(memory=Budget("memory", 50_000))
    reader, writer = await site.connect(POST + b"X-Long: " + b"a" * 5_000)
    await until(lambda: site.memory.taken > 5_000)
    writer.write(b"\r\n" + EMPTY)
    assert await status_of(reader) == 200
    assert site.memory.taken == 0
    _, gone = await site.connect(POST + b"".join(b"%x:\r\n" % n for n in range(30)))
    await until(lambda: site.memory.taken > 30 * 500)  # what 30 fields take in memory
    gone.close()
    await until(lambda: site.memory.taken == 0)


async def test_memory__client_over_its_share__gets_503_and_others_do_not(open_site: OpenSite) -> None:
    site = await open_site(memory=Budget("memory", 50_000))
    await site.connect(POST + b"X-Long: " + b"a" * 26_000)
    await site.received(26_000)
    reader, _ = await site.connect(POST + b"X-Long: " + b"a" * 9_000)
    assert await status_of(reader) == 503
    reader, _ = await site.connect(POST + EMPTY)
    assert await status_of(reader) == 200, "a small complete request needs no memory"
    reader, writer = await site.connect(GATE + b"Content-Length: 3000\r\n\r\n" + b"x" * 2_999, address="127.0.0.2")
    await until(lambda: site.seen[-1].target == "/gate")
    writer.write(b"x")
    site.gate.set()
    assert await status_of(reader) == 200


@pytest.mark.parametrize("target", [b"/gate", b"/stream"], ids=["before the response", "within the response"])
async def test_bytes_behind_a_request_in_progress__count_and_are_bounded(open_site: OpenSite, target: bytes) -> None:
    site = await open_site(memory=Budget("memory", 50_000))
    reader, writer = await site.connect(POST.replace(b"/predict", target) + EMPTY)
    await until(lambda: site.seen)
    writer.write(POST + EMPTY + POST + b"X-Long: " + b"a" * 20_000)
    await until(lambda: site.memory.taken > 20_000)
    writer.write(b"a" * 300_000)
    await site.received(60_000)
    site.gate.set()
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            assert (await reader.read()).count(b"HTTP/1.1") == 1
    await until(lambda: not site.memory.taken)


async def test_unread_response_over_the_memory_budget__closes_the_connection(open_site: OpenSite) -> None:
    site = await open_site(memory=Budget("memory", 1 << 20), padding=b"x" * (32 << 20))  # the kernel takes a few MiB
    reader, _ = await site.connect(POST + EMPTY)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(32 << 20)
    assert not site.memory.taken


# how connections end


@pytest.mark.parametrize("head", [GATE + b"Content-Length: 3\r\n\r\n", POST + b"Content-Length: 300\r\n\r\n"])
async def test_client_that_leaves__cancels_its_handler_and_frees_its_memory(open_site: OpenSite, head: bytes) -> None:
    site = await open_site()
    _, writer = await site.connect(head + b"abc")
    await until(lambda: site.seen)
    writer.close()
    await until(lambda: not site.server.connections)
    await until(lambda: site.cancelled or head.startswith(POST))
    assert site.memory.taken == 0


async def test_closed_connection__is_freed_without_the_collector(open_site: OpenSite) -> None:
    site = await open_site()
    gc.disable()
    try:
        reader, writer = await site.connect(POST + b"Content-Length: 3\r\n\r\nabc")
        assert await status_of(reader) == 200
        [connection] = site.server.connections
        site.seen.clear()
        writer.close()
        await until(lambda: sys.getrefcount(connection) == 2)
    finally:
        gc.enable()


async def test_drain__answers_a_new_request_and_closes(open_site: OpenSite) -> None:
    site = await open_site()
    reader, writer = await site.connect()
    await until(lambda: site.server.connections)
    site.server.start_draining()
    writer.write(POST + b"Content-Length: 2\r\n\r\n12")
    response = await reader.read()
    assert response.startswith(b"HTTP/1.1 200") and b"Connection: close" in response


async def test_shutdown__waits_for_requests_and_closes_idle_connections(open_site: OpenSite) -> None:
    site = await open_site()
    idle, _ = await site.connect()
    reader, _ = await site.connect(GATE + EMPTY)
    await until(lambda: site.seen)
    site.server.pre_shutdown()
    assert await idle.read() == b""
    shutdown = asyncio.create_task(site.server.shutdown(20))
    site.gate.set()
    assert await status_of(reader) == 200
    await shutdown
    assert await reader.read() == b""


async def test_shutdown__past_its_timeout__cancels_the_handler(open_site: OpenSite) -> None:
    site = await open_site()
    reader, _ = await site.connect(GATE + EMPTY)
    await until(lambda: site.seen)
    await site.server.shutdown(0)
    assert site.cancelled == 1
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
