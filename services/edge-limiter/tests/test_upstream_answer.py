import asyncio

import pytest

from edge_limiter.body import BodyBuffer
from edge_limiter.upstream.exchange import BadGateway, UpstreamLate
from edge_limiter.upstream.response import MAX_READ_BYTES, UpstreamAnswer


def answer_of(body: BodyBuffer, idle_s: float = 60.0) -> UpstreamAnswer:
    return UpstreamAnswer(200, [], None, body, idle_s)


@pytest.mark.parametrize("excess", [0, 1])
async def test_answer_without_end__is_read_no_further_than_may_be_read_at_once(excess: int) -> None:
    body = BodyBuffer(lambda: None, lambda: None)
    reading = asyncio.create_task(answer_of(body).read())
    for piece in (bytes(MAX_READ_BYTES // 2), bytes(MAX_READ_BYTES // 2), bytes(excess)):
        await asyncio.sleep(0)
        body.feed(piece)
    await asyncio.sleep(0)
    body.finish()
    if excess:
        with pytest.raises(BadGateway):
            await reading
    else:
        assert len(await reading) == MAX_READ_BYTES


async def test_answer_that_stops_coming__is_late() -> None:
    body = BodyBuffer(lambda: None, lambda: None)
    body.feed(b"so far")
    async with asyncio.timeout(60):
        with pytest.raises(UpstreamLate):
            await answer_of(body, idle_s=0.01).read()
