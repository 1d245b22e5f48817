"""All client connections: how many are open, how long each may take, and how they end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
from aiohttp import web

from edge_limiter.server.budget import Budget
from edge_limiter.server.connection import ClientConnection
from edge_limiter.server.request import Request
from edge_limiter.server.response import ResponseWriter

log = structlog.get_logger()

SWEEP_S: Final = 0.5
DRAIN_POLL_S: Final = 0.05

Handle = Callable[[Request, ResponseWriter], Awaitable[None]]
"""Answers one request."""


class HttpServer(web.Server):
    """Creates a ClientConnection for each connection. `run` must be running: its sweep enforces the timeouts.

    `memory` bounds the bytes of requests, and of responses that clients do not read. `client_of` maps a peer's address
    to its client, or to None for a proxy of many clients.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        connections: Budget,
        memory: Budget,
        client_of: Callable[[str], bytes | None],
        keep_alive_s: float = 75.0,
    ) -> None:
        super().__init__(_unused, handler_cancellation=True)
        self.handle = handle
        self.connection_budget = connections
        self.memory = memory
        self.client_of = client_of
        self.keep_alive_s = keep_alive_s
        self.is_draining = False
        self.received_bytes = 0
        self._open: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, self._loop)

    @property
    def connections(self) -> list[web.RequestHandler]:
        """The open connections."""
        return list(self._open)

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return sum(connection.is_busy for connection in self._open)

    def connection_made(self, connection: web.RequestHandler, _transport: asyncio.Transport) -> None:
        assert isinstance(connection, ClientConnection)
        self._open.add(connection)

    def connection_lost(self, connection: web.RequestHandler, _error: BaseException | None = None) -> None:
        assert isinstance(connection, ClientConnection)
        self._open.remove(connection)
        self.connection_budget.give_back(connection.client)

    async def run(self) -> None:
        """Enforce the timeouts twice a second until cancelled: one timer for all connections."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(self._loop.time())

    def sweep(self, now: float) -> None:
        """Enforce the timeouts of every connection. One that fails is closed, and the others are still checked."""
        for connection in list(self._open):
            try:
                connection.enforce_timeouts(now)
                if self.is_draining:
                    connection.response.start_draining()
            except Exception:
                log.exception("connection check failed")
                connection.abort()

    def start_draining(self) -> None:
        """Close each connection after its next response, and end event streams."""
        self.is_draining = True
        self.sweep(self._loop.time())

    def pre_shutdown(self) -> None:
        """Close the idle connections."""
        self.start_draining()
        for connection in list(self._open):
            connection.close_if_idle()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Wait for the responses in progress, at most `timeout` seconds, then close all connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # asyncio has no event for a flushed write buffer
                while any(connection.is_busy or connection.is_sending for connection in self._open):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL_S)
        late = [connection.task for connection in self._open if connection.is_busy and connection.task is not None]
        for connection in list(self._open):
            connection.abort()
        if late:
            await asyncio.wait(late)  # for the cancellation to take effect


async def _unused(_request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError("ClientConnection.start calls HttpServer.handle instead")
