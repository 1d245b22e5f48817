"""Serves the public port of an app with aiohttp, behind a server of the service's own if it has one; drains both."""

import asyncio
from collections.abc import Awaitable, Callable, Sized
from contextlib import suppress
from typing import Final, Protocol, cast

from aiohttp import web

from common.runtime.readiness import Readiness

KEEPALIVE_S: Final = 60.0
LAME_DUCK_S: Final = 2.0
LAME_DUCK_POLL_S: Final = 0.05
CUT_OFF_S: Final = 0.1  # for each step of cutting off what is late
LINGER_S: Final = 10.0  # for a client that still sends when it is answered: a reset would cost it the answer
MAX_LINE_BYTES: Final = 16 << 10
MAX_FIELD_BYTES: Final = 64 << 10
"""More than the edge passes on: what aiohttp finds too long it refuses in plain text, and repeats it."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""What aiohttp's server has a request answered by."""


class Front(Protocol):
    """A server of a service's own, which stands before aiohttp's."""

    @property
    def connections(self) -> Sized:
        """Those that are open."""

    def start_draining(self) -> None:
        """From now on close each connection after its answer."""

    def pre_shutdown(self) -> None:
        """Close what is idle."""

    async def shutdown(self, timeout: float | None = None) -> None:
        """Wait for the answers, at most `timeout` seconds, then cut off the rest; cancelled, only end to wait."""

    def __call__(self) -> asyncio.Protocol: ...


class Runner(web.AppRunner):
    """Opens an app's resources, serves its port and closes all in order."""

    def __init__(
        self,
        app: web.Application,
        readiness: Readiness,
        drain_s: float,
        front: Callable[[web.Server], Front] | None = None,
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
        self._front = front
        self._around = around
        self._before: Front | None = None
        self._readiness = readiness
        self._drain_s = drain_s
        app.on_response_prepare.append(self._close_when_draining)

    async def start_draining(self) -> None:
        """Take no new connection, and answer on the old ones with `Connection: close` for a moment.

        A client would else send a request on a connection that is just being closed, even on one just made, and could
        not know whether it was handled.
        """
        for site in list(self.sites):
            await site.stop()
        if self._before is not None:
            self._before.start_draining()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAME_DUCK_S
        server = self._before or self.server
        # aiohttp tells nobody when a connection ends, so this has to look
        while server is not None and server.connections and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LAME_DUCK_POLL_S)

    async def shutdown(self) -> None:
        """Wait for the answers, at most `drain_s` in all; what is late is cut off after.

        aiohttp would take the whole time twice, before it tells a handler to end and after, and a front once more.
        """
        await super().shutdown()
        server = self._before or self.server
        if server is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await server.shutdown(None)

    async def _close_when_draining(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self._readiness.draining:
            response.headers["Connection"] = "close"
            response.force_close()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        if self._around is not None:
            server.request_handler = self._around(server.request_handler)
        if self._front is None:
            return server
        self._before = self._front(server)
        return cast(web.Server, self._before)
