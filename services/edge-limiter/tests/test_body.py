import asyncio
import tracemalloc

import pytest

from edge_limiter.body import BodyBuffer


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
