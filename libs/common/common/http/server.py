"""Runners that serve the public port of a service and drain it: for an aiohttp app or any other server."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Final, Protocol, runtime_checkable

from aiohttp import web

from common.runtime.readiness import Readiness

KEEPALIVE_S: Final = 60.0
LAME_DUCK_S: Final = 2.0
LAME_DUCK_POLL_S: Final = 0.05
CUT_OFF_S: Final = 0.1  # for each step of ending what is late
LINGER_S: Final = 10.0  # for clients that still send when they get the response: a reset would cost them the response
MAX_LINE_BYTES: Final = 16 << 10
MAX_FIELD_BYTES: Final = 64 << 10
"""More than the edge forwards, because aiohttp refuses longer ones in plain text that repeats them."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""The request handler of an aiohttp server."""

OpenServer = Callable[[], AbstractAsyncContextManager[web.Server]]
"""Opens the resources of a service and yields its server. They are closed in reverse after the drain."""


@runtime_checkable
class Draining(Protocol):
    """A server that ends its connections itself."""

    def start_draining(self) -> None:
        """Close each connection after its next response."""


class Runner(web.BaseRunner):
    """Opens a server, serves its port, drains it, and closes everything in order."""

    drain_s: float

    async def start_draining(self) -> None:
        """Stop accepting connections, and answer on open ones with `Connection: close` for a moment.

        Otherwise a client could send a request on a connection that is being closed, and could not know whether it was
        handled.
        """
        for site in list(self.sites):
            await site.stop()
        server = self.server
        if isinstance(server, Draining):
            server.start_draining()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAME_DUCK_S
        # aiohttp has no event for the end of a connection
        while server is not None and server.connections and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LAME_DUCK_POLL_S)

    async def shutdown(self) -> None:
        """Wait for responses in progress, at most `drain_s`. aiohttp alone would wait that long twice."""
        if self.server is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.drain_s):
                    await self.server.shutdown(None)


class ServerRunner(Runner):
    """Runs the server that `open_server` yields."""

    def __init__(self, open_server: OpenServer, drain_s: float) -> None:
        super().__init__(shutdown_timeout=CUT_OFF_S)
        self.drain_s = drain_s
        self._open_server = open_server
        self._opened = AsyncExitStack()

    async def _make_server(self) -> web.Server:
        return await self._opened.enter_async_context(self._open_server())

    async def _cleanup_server(self) -> None:
        await self._opened.aclose()


class AppRunner(Runner, web.AppRunner):
    """Runs an aiohttp app. `around` wraps its request handler."""

    def __init__(
        self,
        app: web.Application,
        readiness: Readiness,
        drain_s: float,
        around: Callable[[Handler], Handler] | None = None,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=CUT_OFF_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            lingering_time=LINGER_S,
        )
        self.drain_s = drain_s
        self._around = around
        self._readiness = readiness
        app.on_response_prepare.append(self._close_when_draining)

    async def shutdown(self) -> None:
        """Run the app's `on_shutdown`, then drain."""
        await self.app.shutdown()
        await super().shutdown()

    async def _close_when_draining(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self._readiness.draining:
            response.headers["Connection"] = "close"
            response.force_close()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        if self._around is not None:
            server.request_handler = self._around(server.request_handler)
        return server
