import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress

import pytest
from aiohttp import web

from edge_limiter.upstream.client import Resolve, Upstream, random_lifetime_s
from edge_limiter.upstream.exchange import BadGateway, UpstreamBusy, UpstreamLate

Connect = Callable[..., Awaitable[Upstream]]


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Call it with an origin for an Upstream, which has more patience than a busy machine needs."""
    monkeypatch.setattr("edge_limiter.upstream.client.KEEPALIVE_S", 60.0)
    monkeypatch.setattr("edge_limiter.upstream.connection.CONTINUE_S", 60.0)
    with ExitStack() as stack:

        async def make(
            origin: str,
            *,
            limit: int = 10,
            idle_s: float = 60.0,
            dial_s: float = 60.0,
            resolve: Resolve | None = None,
            lifetime_s: Callable[[], float] = lambda: 60.0,
        ) -> Upstream:
            upstream = Upstream(
                origin,
                connect_timeout_s=dial_s,
                idle_timeout_s=idle_s,
                limit=limit,
                observe=lambda seconds: None,
                resolve=resolve,
                lifetime_s=lifetime_s,
            )
            stack.callback(upstream.close)
            return upstream

        yield make


async def call(upstream: Upstream, method: str, body: bytes = b"", timeout_s: float = 60.0) -> int:
    with await upstream(method, "/x", [], body, timeout_s) as answer:
        await answer.read()
        return answer.status


def closes_kept_connections(requests: list[bytes]) -> Callable[..., Awaitable[None]]:
    """A server that answers one request a connection and reads the second without answering it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b""):
            requests.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
            writer.write(answer)
            await writer.drain()

    return serve


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE", "OPTIONS"])
async def test_write_on_a_connection_that_turns_out_dead__is_not_sent_again(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], method: str
) -> None:
    requests: list[bytes] = []
    upstream = await connect(await start_raw_upstream(closes_kept_connections(requests)))
    assert await call(upstream, "GET") == 200
    with pytest.raises(BadGateway):
        await call(upstream, method, b"x")
    assert requests == [b"GET", method.encode()]


async def test_read_on_a_connection_that_turns_out_dead__is_sent_again(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    requests: list[bytes] = []
    upstream = await connect(await start_raw_upstream(closes_kept_connections(requests)))
    assert [await call(upstream, "GET") for _ in range(2)] == [200, 200]
    assert requests == [b"GET"] * 3


async def test_closed_port__is_a_bad_gateway(connect: Connect, free_port: Callable[[], int]) -> None:
    upstream = await connect(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BadGateway):
        await call(upstream, "POST", b"x")
    assert upstream.in_flight == 0


async def test_uploads_that_fail__leave_their_room_to_the_next(connect: Connect, free_port: Callable[[], int]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    upstream = await connect(f"http://127.0.0.1:{free_port()}", limit=2)
    for _ in range(3):
        with pytest.raises(BadGateway):
            await upstream("POST", "/x", [], pieces(), 60.0)
    assert upstream.in_flight == 0


@pytest.mark.parametrize(("method", "says_length"), [("POST", True), ("GET", False)])
async def test_request_without_a_body__says_so_where_one_is_expected(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], method: str, says_length: bool
) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    assert await call(await connect(await start_raw_upstream(serve)), method) == 200
    assert (b"\r\nContent-Length: 0\r\n" in heads[0]) == says_length


async def test_answer_that_nobody_reads__is_not_taken_from_its_upstream(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    """Else an answer to a slow client would lie in our memory: here 64 MB, of which the sockets hold a few."""
    sent, size = 0, 1 << 16

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1_000 * size))
        for _ in range(1_000):
            writer.write(b"x" * size)
            await writer.drain()
            sent += 1

    upstream = await connect(await start_raw_upstream(serve))
    with await upstream("GET", "/x", [], b"", 60.0) as answer:
        for _ in range(10_000):
            await asyncio.sleep(0)
        assert sent < 1_000
        assert sum([len(piece) async for piece in answer.chunks()]) == 1_000 * size


async def test_upstream_that_does_not_read__is_not_read_ahead_for(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    """Else a client's whole body would lie in our memory: here 64 MB, of which the sockets hold a few."""
    taken, reads, size = 0, asyncio.Event(), 1 << 16

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1_000):
            taken += 1
            await asyncio.sleep(0)
            yield b"x" * size

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reads.wait()
        await reader.readexactly(1_000 * size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    upstream = await connect(await start_raw_upstream(serve))
    length = ("Content-Length", str(1_000 * size))
    calling = asyncio.create_task(upstream("POST", "/x", [length], pieces(), 60.0))
    while not taken:
        await asyncio.sleep(0)
    for _ in range(4_000):
        await asyncio.sleep(0)
    assert taken < 1_000
    reads.set()
    with await calling as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    ],
)
async def test_answer_that_breaks_off_or_is_nonsense__is_a_bad_gateway(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], answer: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    upstream = await connect(await start_raw_upstream(serve))
    with pytest.raises(BadGateway):
        await call(upstream, "POST")


@pytest.mark.parametrize(
    "endless", [b"X: " + b"a" * 100_000, b"a" * 100_000, b"X: 1\r\n" * 20_000], ids=["value", "name", "fields"]
)
async def test_head_without_end__is_a_bad_gateway(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], endless: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(endless)
                await writer.drain()

    upstream = await connect(await start_raw_upstream(serve))
    with pytest.raises(BadGateway):
        await call(upstream, "POST")


async def test_silent_upstream__is_late_and_let_go(
    connect: Connect, start_upstream: Callable[..., Awaitable[str]]
) -> None:
    entered, gone, timeout_s = asyncio.Event(), asyncio.Event(), 0.05

    async def silent(_request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    upstream = await connect(await start_upstream(silent))
    while not entered.is_set():  # on a busy machine the first request may be late before it arrives
        with pytest.raises(UpstreamLate):
            with await upstream("GET", "/x", [], b"", timeout_s):
                pass
        timeout_s *= 2
    async with asyncio.timeout(60):
        await gone.wait()


async def test_body_that_stops_coming__is_late(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        await reader.read()

    upstream = await connect(await start_raw_upstream(serve), idle_s=0.05)
    with pytest.raises(UpstreamLate):
        await call(upstream, "GET")


async def test_more_requests_than_allowed__are_refused_at_once(
    connect: Connect, start_upstream: Callable[..., Awaitable[str]]
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def held(_request: web.Request) -> web.Response:
        entered.set()
        await leave.wait()
        return web.Response()

    upstream = await connect(await start_upstream(held), limit=1)
    first = asyncio.create_task(call(upstream, "GET"))
    await entered.wait()
    with pytest.raises(UpstreamBusy):
        await call(upstream, "GET")
    leave.set()
    assert await first == 200
    assert await call(upstream, "GET") == 200


@pytest.fixture
async def replicas(free_port: Callable[[], int]) -> AsyncIterator[tuple[int, dict[str, int]]]:
    """A port on which two addresses listen, and how many connections each has had."""
    port, connections = free_port(), {"127.0.0.1": 0, "127.0.0.2": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[writer.get_extra_info("sockname")[0]] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(serve, address, port) for address in connections]
    yield port, connections
    for server in servers:
        server.close()


def answers(*addresses: str) -> Resolve:
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


async def test_replicas_behind_one_name__take_turns(connect: Connect, replicas: tuple[int, dict[str, int]]) -> None:
    port, connections = replicas
    upstream = await connect(f"http://replicas:{port}", resolve=answers("127.0.0.1", "127.0.0.2"))
    assert [await call(upstream, "GET") for _ in range(10)] == [200] * 10
    assert connections == {"127.0.0.1": 5, "127.0.0.2": 5}


async def test_dead_address_that_the_name_still_lists__is_passed(
    connect: Connect, replicas: tuple[int, dict[str, int]]
) -> None:
    port, connections = replicas
    upstream = await connect(f"http://replicas:{port}", resolve=answers("127.0.0.3", "127.0.0.2"))
    assert [await call(upstream, "POST", b"x") for _ in range(4)] == [200] * 4
    assert connections["127.0.0.2"] == 4


async def test_many_dial_while_one_address_is_dead__each_passes_it(
    connect: Connect, replicas: tuple[int, dict[str, int]]
) -> None:
    port, _ = replicas
    upstream = await connect(f"http://replicas:{port}", resolve=answers("127.0.0.3", "127.0.0.2"))
    assert await asyncio.gather(*(call(upstream, "POST", b"x") for _ in range(9))) == [200] * 9


async def test_name_without_an_address__is_a_bad_gateway(connect: Connect) -> None:
    upstream = await connect("http://nowhere:1", resolve=answers())
    with pytest.raises(BadGateway):
        await call(upstream, "GET")


async def test_kept_connections__take_turns(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    used: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            used.append(writer.get_extra_info("peername")[1])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream = await connect(await start_raw_upstream(serve))
    with await upstream("GET", "/x", [], b"", 60.0) as first, await upstream("GET", "/x", [], b"", 60.0) as second:
        await first.read()
        await second.read()
    for _ in range(4):
        await call(upstream, "GET")
    assert len(set(used)) == 2
    assert used[2:4] == used[4:6]
    assert used[2] != used[3]


async def test_connections_of_one_moment__end_one_by_one(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    used: list[int] = []
    lives_s = iter([60.0, 0.0, 60.0])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            used.append(writer.get_extra_info("peername")[1])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream = await connect(await start_raw_upstream(serve), lifetime_s=lambda: next(lives_s))
    with await upstream("GET", "/x", [], b"", 60.0) as first, await upstream("GET", "/x", [], b"", 60.0) as second:
        await first.read()
        await second.read()
    for _ in range(4):
        await call(upstream, "GET")
    assert set(used[2:]) < set(used[:2])  # the other has ended, and no third was needed


def test_lives_of_connections__are_spread_over_half_a_minute() -> None:
    lives_s = [random_lifetime_s() for _ in range(1000)]
    assert 30 <= min(lives_s) < 35 and 55 < max(lives_s) <= 60


async def test_server_that_stops_before_it_accepts__costs_no_request(
    connect: Connect, start_upstream: Callable[..., Awaitable[str]]
) -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(status=200 if await request.read() == b"x" else 400)

    port = int((await start_upstream(read)).rpartition(":")[2])
    with socket.create_server(("127.0.0.2", port)) as listening:
        upstream = await connect(f"http://replicas:{port}", resolve=answers("127.0.0.1", "127.0.0.2"))
        waiting = asyncio.create_task(call(upstream, "POST", b"x"))
        await asyncio.to_thread(await_connection, listening)
    assert await waiting == 200


def await_connection(listening: socket.socket) -> None:
    """Until one is in the queue of those to accept; closing the socket then resets it."""
    poller = select.poll()
    poller.register(listening, select.POLLIN)
    assert poller.poll(60_000)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def says(heard: list[bytes], *words: bytes) -> Callable[..., Awaitable[None]]:
    """A server that reads a head, then by turns says something and reads what follows."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n"))[:4])
        for word in words:
            writer.write(word)
            heard.append(await reader.read(100))

    return serve


async def test_new_connection__hands_the_body_over_to_somebody_who_reads(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    heard: list[bytes] = []
    upstream = await connect(await start_raw_upstream(says(heard, CONTINUE, OK)))
    assert await call(upstream, "POST", b"body") == 200
    assert heard == [b"POST", b"body"]


async def test_server_that_knows_no_expectations__gets_the_body_all_the_same(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_limiter.upstream.connection.CONTINUE_S", 0.05)
    heard: list[bytes] = []
    upstream = await connect(await start_raw_upstream(says(heard, b"", OK)))
    assert await call(upstream, "POST", b"body") == 200
    assert heard == [b"POST", b"body"]


async def test_final_answer_in_place_of_the_go_ahead__is_the_answer_and_ends_the_connection(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    heard: list[bytes] = []
    upstream = await connect(await start_raw_upstream(says(heard, OK)))
    assert [await call(upstream, "POST", b"body") for _ in range(2)] == [200, 200]
    assert [word for word in heard if word] == [b"POST"] * 2


async def test_connection_that_breaks_off_after_the_go_ahead__is_not_sent_again(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    heard: list[bytes] = []
    upstream = await connect(await start_raw_upstream(says(heard, CONTINUE)))
    with pytest.raises(BadGateway):
        await call(upstream, "POST", b"body")
    assert heard == [b"POST", b"body"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_server_that_hangs_up_on_everybody__is_a_bad_gateway_after_three(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], method: str
) -> None:
    heard: list[bytes] = []
    upstream = await connect(await start_raw_upstream(says(heard)))
    with pytest.raises(BadGateway):
        await call(upstream, method, b"" if method == "GET" else b"body")
    assert len(heard) == 3


async def test_name_server_away__the_last_known_addresses_serve(
    connect: Connect, replicas: tuple[int, dict[str, int]]
) -> None:
    port, _ = replicas
    known = [["127.0.0.1"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        if not known:
            raise OSError("try again later")
        return known.pop()

    upstream = await connect(f"http://replicas:{port}", resolve=resolve)
    assert [await call(upstream, "POST", b"x") for _ in range(2)] == [200, 200]


async def test_name_server_that_hangs__is_asked_once_and_the_last_known_addresses_serve(
    connect: Connect, replicas: tuple[int, dict[str, int]]
) -> None:
    port, _ = replicas
    asked = 0

    async def resolve(_host: str, _port: int) -> list[str]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    upstream = await connect(f"http://replicas:{port}", dial_s=6.0, resolve=resolve)
    assert await call(upstream, "POST", b"x") == 200
    calls = (call(upstream, "POST", b"x", timeout_s=20.0) for _ in range(9))
    assert await asyncio.gather(*calls) == [200] * 9
    assert asked == 2


async def test_deadline_that_passes_while_dialling__is_late(connect: Connect) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    upstream = await connect("http://replicas:1", resolve=resolve)
    with pytest.raises(UpstreamLate):
        await call(upstream, "POST", b"x", timeout_s=0.05)
