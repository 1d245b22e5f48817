import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from edge_limiter.body import BodyBuffer, ClientGone, NoRoom, Room


async def test_large_body_that_nobody_reads__holds_the_connection_back() -> None:
    calls: list[str] = []
    body = BodyBuffer(lambda: calls.append("hold"), lambda: calls.append("release"))
    body.feed(b"x" * 100_000)
    body.feed(b"x" * 100_000)
    assert calls == ["hold"]
    assert len(await body.piece()) == 200_000
    assert calls == ["hold", "release"]


@pytest.mark.parametrize("is_read", [False, True])
async def test_body_in_pieces_of_two_bytes__takes_little_more_memory_than_it_has(is_read: bool) -> None:
    pieces = [number.to_bytes(2) for number in range(1 << 14)]
    body = BodyBuffer(lambda: None, lambda: None)
    whole = asyncio.create_task(body.whole(1 << 20))
    tracemalloc.start()
    try:
        for piece in pieces:
            body.feed(bytes(bytearray(piece)))
            if is_read:
                await asyncio.sleep(0)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 4 * (2 << 14)
    body.finish()
    assert await whole == b"".join(pieces)


async def test_body_that_was_ended__takes_nothing_more() -> None:
    body = BodyBuffer(lambda: None, lambda: None)
    body.feed(b"what came")
    body.finish()
    body.feed(b"what comes faster than it is read")
    assert [await body.piece(), await body.piece()] == [b"what came", b""]


def buffer(room: Room) -> BodyBuffer:
    return BodyBuffer(lambda: None, lambda: None, room=room)


async def test_body_that_is_read_whole__takes_room_until_it_is_freed() -> None:
    room = Room(1_000)
    body, unread = buffer(room), buffer(room)
    body.feed(b"x" * 600)
    body.finish()
    body.put_back(await body.whole(1_000))
    unread.feed(b"y" * 100)
    assert room.held_bytes == 700
    body.free_room()
    assert room.held_bytes == 100
    del body, unread
    assert room.held_bytes == 0


async def test_body_that_is_passed_on_in_pieces__takes_room_until_it_is_freed_for_its_reader_keeps_it() -> None:
    room = Room(1_000)
    body = buffer(room)
    pieces = aiter(body)
    for passed_on in (400, 800):
        body.feed(b"x" * 400)
        await anext(pieces)
        assert room.held_bytes == passed_on
    body.feed(b"x" * 400)
    with pytest.raises(NoRoom):
        await anext(pieces)
    body.free_room()
    assert room.held_bytes == 0


async def test_without_room__who_waits_for_more_hears_so_and_a_whole_body_goes_on() -> None:
    room = Room(1_000)
    complete, partial = buffer(room), buffer(room)
    complete.feed(b"x" * 600)
    complete.finish()
    partial.feed(b"y" * 600)
    with pytest.raises(NoRoom):
        await partial.whole(10_000)
    assert len(await complete.whole(10_000)) == 600


@pytest.mark.parametrize("read", [lambda body: body.piece(), lambda body: body.whole(10)])
async def test_body_that_was_dropped__does_not_look_like_one_that_has_ended(
    read: Callable[[BodyBuffer], Awaitable[bytes]],
) -> None:
    body = BodyBuffer(lambda: None, lambda: None)
    body.feed(b"abc")
    body.finish()
    body.drop()
    with pytest.raises(ClientGone):
        await read(body)
