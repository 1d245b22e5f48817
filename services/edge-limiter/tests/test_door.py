import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
import uvloop
from aiohttp import web
from structlog.testing import capture_logs

from edge_limiter.app import DOOR
from edge_limiter.body import UNBOUNDED, ClientGone, Room
from edge_limiter.connection import Connection, Later
from edge_limiter.door import Door
from edge_limiter.limits import LINGER_BYTES, Patience
from edge_limiter.pages import Pages
from edge_limiter.places import Places
from edge_limiter.request import Request
from edge_limiter.unread import Unread

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]
HEAD = b"POST /predict HTTP/1.1\r\nHost: edge\r\n"


@dataclass
class Front:
    """A door on a port of its own, whose handler answers with the size of the body, or with the refusal's status."""

    door: Door
    port: int
    seen: list[Request] = field(default_factory=list)
    padding: bytes = b""
    page: asyncio.Protocol | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    def later(self, seconds: float) -> None:
        self.door.sweep(asyncio.get_running_loop().time() + seconds)


@pytest.fixture
async def open_front() -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    async with AsyncExitStack() as stack:

        async def start(
            max_connections: int = 10,
            whose: Callable[[str], bytes | None] = lambda _peer: None,
            room: Room = UNBOUNDED,
            unread: Unread | None = None,
        ) -> Front:
            async def handle(request: Request, connection: Connection) -> None:
                front.seen.append(request)
                if request.target == "/gate":
                    await front.gate.wait()
                if front.page is not None:
                    connection.hand_over(front.page, b"head")
                    return
                if request.refusal is not None:
                    connection.out.send(request.refusal.status, [], b"", close=True)
                    return
                try:
                    body = await request.body.whole(1 << 20)
                    connection.out.send(200, [], b"%d" % len(body) + front.padding)
                except Exception as error:
                    connection.out.send(getattr(error, "status", 500), [], b"", close=True)

            places = Places(max_connections, whose)
            door = Door(lambda *asked: partial(handle, *asked), Patience(), Pages(), places, room, unread)
            server = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
            front = Front(door, server.sockets[0].getsockname()[1])
            stack.push_async_callback(door.shutdown, 1)
            stack.callback(server.close)
            return front

        yield start


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def arrived(front: Front, count: int) -> None:
    await until(lambda: front.door.bytes[0] >= count)


async def test_head_that_does_not_arrive_in_time__is_408(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect(HEAD[:20])
    await until(lambda: front.door.bytes[0] == 20)
    front.later(14)
    front.later(16)
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_head_that_waits_because_we_do_not_read__is_not_late(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    gate, last = b"GET /gate HTTP/1.1\r\nHost: edge\r\n\r\n", HEAD + b"Content-Length: 0\r\n\r\n"
    reader, writer = await front.connect(gate + last + last[:20])
    await arrived(front, len(gate + last) + 20)
    front.later(16)
    front.gate.set()
    for _ in range(2):
        assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
    writer.write(last[20:])
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_idle_connection__is_closed_without_a_word(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect()
    await until(lambda: front.door._connections)
    front.later(59)
    front.later(61)
    assert await reader.read() == b""
    writer.close()


async def test_body_below_the_minimum_rate__is_408(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 1_000)
    await until(lambda: front.seen)
    front.later(16)
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_body_above_the_minimum_rate__is_waited_for(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 2_000)
    await until(lambda: front.door.bytes[0] > 2_000)
    front.later(16)
    writer.write(b"x" * 98_000)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_small_pieces_late_in_a_body__are_no_overhead(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    head = HEAD + b"Content-Length: 100010\r\n\r\n"
    reader, writer = await front.connect(head)
    await until(lambda: front.seen)
    sent = len(head)
    for piece in (b"x" * 50_000, b"x" * 50_000, b"x" * 5, b"x" * 5):
        if sent == len(head) + 100_000:
            front.later(16)
        writer.write(piece)
        sent += len(piece)
        await arrived(front, sent)
        await until(lambda: not front.seen[0].body._size)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_small_pieces_after_one_that_held_the_connection__are_no_overhead(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    head = HEAD + b"Content-Length: 600010\r\n\r\n"
    reader, writer = await front.connect(head)
    await until(lambda: front.seen)
    sent = len(head)
    for piece in (b"x" * 300_000, b"x" * 300_000, b"x" * 5, b"x" * 5):
        writer.write(piece)
        sent += len(piece)
        await arrived(front, sent)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_client_that_does_not_read__gets_its_next_answers_when_it_does(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    front.padding = b"x" * (16 << 20)
    reader, writer = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    await until(lambda: front.seen)
    received = front.door.bytes[0]
    front.padding = b""
    writer.write(b"GET /models HTTP/1.1\r\nHost: edge\r\n\r\n" * 3)
    await arrived(front, received + 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(front.seen) == 1
    async with asyncio.timeout(20):
        await reader.readexactly(16 << 20)
        while len(front.seen) < 4:
            await reader.read(1 << 20)
    writer.close()


async def test_lines_of_a_head_without_end__are_refused_at_the_hundred_and_first(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    reader, writer = await front.connect(HEAD + b"a:\r\n" * 101)
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_head_in_two_segments__is_measured_whole(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    head = HEAD + b"X: " + b"a" * 40_000
    reader, writer = await front.connect(head)
    await arrived(front, len(head))
    writer.write(b"\r\n\r\n")
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_client_that_leaves_before_its_task_began__is_counted_and_keeps_no_room(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge()
    door = edge.service.app[DOOR]
    connection, transport = door(), Transport()
    connection.connection_made(transport)
    connection.data_received(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
    assert door.room.held_bytes == 50_000
    connection.connection_lost(None)
    assert door.room.held_bytes == 0
    labels = {"route": "/predict", "method": "POST", "status": "499"}
    await until(lambda: edge.sample("sluice_http_requests_total", **labels))


class Transport(asyncio.Transport):
    """Of a client that a test moves by hand."""

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def test_client_that_sends_on_and_on_once_it_was_refused__is_cut_off(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    reader, writer = await front.connect(b"no HTTP\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(60):
            for _ in range(8):
                writer.write(bytes(LINGER_BYTES))
                await writer.drain()
    writer.close()


class Unsent(Transport):
    """Closes only once the client has read the last of an answer, which it never does."""

    is_closed = is_aborted = False

    def write(self, data: object) -> None:
        pass

    def writelines(self, list_of_data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


async def test_client_that_never_reads_the_end_of_its_last_answer__is_cut_off(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front, transport = await open_front(), Unsent()
    connection = front.door()
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.0\r\n\r\n")
    await until(transport.is_closing)
    front.later(59)
    assert not transport.is_aborted
    front.later(61)
    assert transport.is_aborted
    connection.connection_lost(None)


async def test_trailers__are_not_kept(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 10_000 + b"\r\n"
    )
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    [connection] = front.door.connections
    assert connection._incoming._lines == []
    writer.close()


async def test_body_of_a_client_that_left__is_freed_without_the_collector(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        head = HEAD + b"Content-Length: 1000000\r\n\r\n"
        writers = [(await front.connect(head + b"x" * 900_000))[1] for _ in range(10)]
        await arrived(front, 10 * (len(head) + 900_000))
        front.seen.clear()
        for writer in writers:
            writer.transport.abort()
        await until(lambda: not front.door.connections)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept_bytes < 900_000


def test_client_that_leaves_before_it_read_its_answer__is_no_error() -> None:
    """On uvloop, as in service: its transports raise what those of asyncio pass over."""
    ends: list[Exception] = []

    async def answer(connection: Connection) -> None:
        try:
            connection.out.begin(200, [], None)
            while True:
                await connection.out.write(b"x" * (1 << 20))
        except Exception as error:
            ends.append(error)

    async def leave() -> None:
        door = Door(lambda _, connection: partial(answer, connection), Patience(), Pages(), Places(10, lambda _: None))
        server = await asyncio.get_running_loop().create_server(door, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await until(lambda: door.bytes[1] > 1 << 20)
        writer.transport.abort()
        await until(lambda: not door.connections and ends)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave())
    assert [type(end) for end in ends] == [ClientGone]


async def test_closed_connection__is_freed_without_the_collector(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    gc.disable()
    try:
        _, writer = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n" + HEAD)
        await until(lambda: len(front.seen) == 1)
        [connection] = [weakref.ref(each) for each in front.door.connections]
        writer.transport.abort()
        front.seen.clear()
        await until(lambda: connection() is None)
    finally:
        gc.enable()


async def test_client_that_leaves_with_a_second_request_waiting__ends_the_first(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    gate = b"GET /gate HTTP/1.1\r\nHost: edge\r\n\r\n"
    _, writer = await front.connect(gate * 2)
    await until(lambda: front.seen)
    writer.close()
    await writer.wait_closed()

    def has_ended() -> bool:
        front.later(0)
        return not front.door.connections

    await until(has_ended)
    assert len(front.seen) == 1


class Page(asyncio.Protocol):
    """Writes more than fits into any socket, and hears of what becomes of it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard.append(data.decode())
        self.transport.write(b"x" * (16 << 20))
        self.transport.close()

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append("lost")


async def test_page_that_nobody_reads__counts_as_a_connection_and_is_ended(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front(max_connections=1)
    front.page = page = Page()
    _, writer = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    await until(lambda: page.heard)
    assert (page.heard, len(front.door.connections)) == (["head", "pause"], 1)
    front.later(59)
    assert len(front.door.connections) == 1
    front.later(61)
    await until(lambda: not front.door.connections)
    assert page.heard == ["head", "pause", "lost"]
    writer.close()


async def test_client_that_does_not_read__is_cut_off_for_the_next_when_both_answers_take_too_much(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    unread = Unread(40 << 20)
    front = await open_front(unread=unread)
    front.padding = b"x" * (32 << 20)  # the system takes less than a third of it
    slow, first = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    await until(lambda: unread.held_bytes)
    reader, second = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    await until(lambda: len(front.seen) == 2 and len(front.door.connections) == 1)
    async with asyncio.timeout(20):
        assert len(await reader.readexactly(32 << 20)) == 32 << 20
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await slow.readexactly(32 << 20)
    await until(lambda: not unread.held_bytes)
    _, third = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    await until(lambda: unread.held_bytes)
    third.transport.abort()
    await until(lambda: not unread.held_bytes)
    for writer in (first, second):
        writer.close()


async def test_page_that_waited_behind_a_request__takes_no_room_once_it_is_served(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    room, page = Room(1 << 20), Page()
    front = await open_front(room=room)
    wait = front.door.handle

    def handle(request: Request, connection: Connection) -> Later | None:
        if request.target == "/gate":
            return wait(request, connection)
        connection.hand_over(page, b"head")
        return None

    front.door.handle = handle
    slow = HEAD.replace(b"/predict", b"/gate") + b"Content-Length: 0\r\n\r\n"
    _, writer = await front.connect(slow + HEAD + b"Content-Length: 0\r\nX-Long: " + b"a" * 3_000 + b"\r\n\r\n")
    await until(lambda: room.held_bytes > 3_000)
    front.gate.set()
    await until(lambda: page.heard)
    assert (room.held_bytes, len(front.door.connections)) == (0, 1)
    writer.close()


async def test_head_that_has_begun_behind_a_page__takes_no_room(open_front: Callable[..., Awaitable[Front]]) -> None:
    room, page = Room(1 << 20), Page()
    front = await open_front(room=room)

    def handle(_request: Request, connection: Connection) -> None:
        connection.hand_over(page, b"head")

    front.door.handle = handle
    _, writer = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n" + HEAD + b"X-Long: " + b"a" * 3_000)
    await until(lambda: page.heard)
    assert (room.held_bytes, len(front.door.connections)) == (0, 1)
    writer.close()


async def test_page_that_is_read__is_sent_whole(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    front.page = page = Page()
    reader, writer = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n" * 2)
    async with asyncio.timeout(20):
        assert len(await reader.read()) == 16 << 20
    await until(lambda: not front.door.connections)
    assert page.heard == ["head", "pause", "resume", "lost"]
    writer.close()


async def test_connections_above_the_maximum__are_closed_at_once(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front(max_connections=1)
    _, first = await front.connect()
    await until(lambda: front.door._connections)
    reader, second = await front.connect()
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            assert await reader.read() == b""
            raise ConnectionResetError
    first.close()
    second.close()


async def test_heads_that_are_not_whole__take_room_until_they_are(open_front: Callable[..., Awaitable[Front]]) -> None:
    room = Room(10_000)
    front = await open_front(room=room)
    reader, writer = await front.connect(HEAD + b"X-Long: " + b"a" * 5_000)
    await until(lambda: room.held_bytes > 5_000)
    writer.write(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"200" in await reader.readline()
    assert room.held_bytes == 0
    _, gone = await front.connect(HEAD + b"X-Long: " + b"a" * 5_000)
    await until(lambda: room.held_bytes > 5_000)
    gone.close()
    await until(lambda: room.held_bytes == 0)
    writer.close()


async def test_heads_without_an_end__get_503_where_there_is_no_room_and_whole_ones_are_answered(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front(room=Room(10_000))
    _, first = await front.connect(HEAD + b"X-Long: " + b"a" * 9_000)
    await arrived(front, 9_000)
    reader, second = await front.connect(HEAD + b"X-Long: " + b"a" * 9_000)
    assert b"503" in await reader.readline()
    reader, third = await front.connect(HEAD + b"Content-Length: 0\r\n\r\n")
    assert b"200" in await reader.readline()
    for writer in (first, second, third):
        writer.close()


async def test_many_short_headers__take_the_room_that_they_take_in_memory(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    room = Room(1 << 20)
    front = await open_front(room=room)
    _, writer = await front.connect(HEAD + b"".join(b"%x:\r\n" % n for n in range(90)))
    await until(lambda: room.held_bytes > 90 * 200)
    writer.close()


async def test_requests_whose_turn_has_not_come__take_room(open_front: Callable[..., Awaitable[Front]]) -> None:
    room = Room(10_000)
    front = await open_front(room=room)
    long = HEAD + b"Content-Length: 0\r\nX-Long: " + b"a" * 3_000 + b"\r\n\r\n"
    slow = HEAD.replace(b"/predict", b"/gate") + b"Content-Length: 0\r\n\r\n"
    reader, writer = await front.connect(slow + long)
    await until(lambda: room.held_bytes > 3_000)
    front.gate.set()
    await until(lambda: len(front.seen) == 2)
    assert [b"200" in await reader.readline(), room.held_bytes] == [True, 0]
    front.gate.clear()
    reader, cut = await front.connect(slow + long * 4)
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert room.held_bytes == 0
    for one in (writer, cut):
        one.close()


async def test_many_short_requests_whose_turn_has_not_come__take_the_room_that_they_take_in_memory(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    room = Room(1 << 20)
    front = await open_front(room=room)
    _, writer = await front.connect(
        HEAD.replace(b"/predict", b"/gate") + b"\r\n" + b"GET / HTTP/1.1\r\nHost:a\r\n\r\n" * 30
    )
    await until(lambda: room.held_bytes > 30 * 700)
    front.gate.set()
    writer.close()


async def test_full_door__says_so_once_until_there_is_room_again(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front(max_connections=2)

    async def fill(count: int) -> list[asyncio.StreamWriter]:
        taken = [(await front.connect())[1] for _ in range(count)]
        await until(lambda: len(front.door.connections) == 2)
        return taken

    async def knock() -> None:
        reader, writer = await front.connect()
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()

    with capture_logs() as logs:
        taken = await fill(2)
        for _ in range(3):
            await knock()
        assert len(logs) == 1
        for writer in taken:
            writer.close()
        await until(lambda: not front.door.connections)
        taken = await fill(2)
        await knock()
        assert len(logs) == 2
    for writer in taken:
        writer.close()


async def test_http_1_0__is_answered_and_closed(open_front: Callable[..., Awaitable[Front]]) -> None:
    front = await open_front()
    reader, writer = await front.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer
    writer.close()


async def test_http_1_0_client_that_expects__is_not_told_to_go_on(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    reader, writer = await front.connect(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await until(lambda: front.seen and front.seen[0].body._waiter)
    writer.write(b"12")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_door_that_says_goodbye__still_answers_a_connection_just_made_and_closes_it(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    reader, writer = await front.connect()
    await until(lambda: front.door.connections)
    front.door.start_draining()
    writer.write(HEAD + b"Content-Length: 2\r\n\r\n12")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer
    writer.close()
    await until(lambda: not front.door.connections)


async def test_draining_door__answers_what_has_begun_and_closes_the_idle(
    open_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await open_front()
    idle, idle_writer = await front.connect()
    reader, writer = await front.connect(HEAD + b"Content-Length: 2\r\n\r\n1")
    await until(lambda: front.seen)
    front.door.pre_shutdown()
    assert await idle.read() == b""
    writer.write(b"2")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer
    writer.close()
    idle_writer.close()


async def test_slow_clients_by_the_hundred__leave_the_others_alone(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def fine(_request: web.Request) -> web.Response:
        return web.Response()

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_RATE_LIMIT="1000")
    slow = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(100)]
    for number, (_, writer) in enumerate(slow):
        writer.write(HEAD + (b"Content-Length: 100\r\n\r\n" if number % 2 else b""))
    assert [await edge.post() for _ in range(20)] == [200] * 20
    door = edge.service.app[DOOR]
    door.sweep(asyncio.get_running_loop().time() + 20)
    for reader, writer in slow:
        async with asyncio.timeout(5):
            assert (await reader.readline()).split(b" ")[1] in (b"408", b"504")
        writer.close()
