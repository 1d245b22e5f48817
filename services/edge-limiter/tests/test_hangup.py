"""A client that leaves is noticed by the system's own word where nobody reads from its connection."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
import uvloop

from edge_limiter.hangup import has_hung_up


async def _look(leave: Callable[[asyncio.StreamWriter], None]) -> tuple[bool, bool]:
    """What is found before and after a client has left a connection that is not read from."""
    taken: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Paused(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.set_result(cast(asyncio.Transport, transport))

        def data_received(self, data: bytes) -> None:
            taken.result().pause_reading()

    server = await asyncio.get_running_loop().create_server(Paused, "127.0.0.1", 0)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"x")
        transport = await taken
        while transport.is_reading():
            await asyncio.sleep(0.001)
        before = has_hung_up(transport)
        leave(writer)
        async with asyncio.timeout(60):
            while not has_hung_up(transport):
                await asyncio.sleep(0.001)
        transport.abort()
        writer.close()
        return before, True
    finally:
        server.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("leave", [lambda w: w.close(), lambda w: w.write_eof(), lambda w: w.transport.abort()])
def test_client_that_leaves__is_noticed(
    loop: Callable[[], asyncio.AbstractEventLoop], leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(_look(leave)) == (False, True)
