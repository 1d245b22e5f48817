"""All client connections: how many are open, how long each may take, and how they end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from edge_limiter.server.connection import RequestHandler
from edge_limiter.server.connection_limits import ConnectionLimiter, MemoryBudget, SlowReaders
from edge_limiter.server.request import Request
from edge_limiter.server.response import ResponseWriter

log = structlog.get_logger()

SWEEP_S: Final = 0.5
DRAIN_POLL_S: Final = 0.05

Handle = Callable[[Request, ResponseWriter], Awaitable[None]]
"""Answers one request."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a client may take. A body has at least `body_bytes_per_s` over each `body_s`."""

    head_s: float = 15.0
    keep_alive_s: float = 75.0
    body_s: float = 15.0
    body_bytes_per_s: int = 100
    send_s: float = 60.0


class HttpServer(web.Server):
    """Creates a RequestHandler for each connection. `run` must be running: its sweep enforces the timeouts.

    `client_of` maps a peer's address to its client, or to None for a proxy of many clients.
    """

    def __init__(
        self,
        handle: Handle,
        timeouts: Timeouts = Timeouts(),  # frozen
        limiter: ConnectionLimiter | None = None,
        budget: MemoryBudget | None = None,
        slow_readers: SlowReaders | None = None,
        client_of: Callable[[str], bytes | None] = lambda _peer: None,
    ) -> None:
        super().__init__(_unused, handler_cancellation=True)
        self.handle = handle
        self.timeouts = timeouts
        self.limiter = limiter or ConnectionLimiter(20_000)
        self.budget = budget or MemoryBudget()
        self.slow_readers = slow_readers or SlowReaders()
        self.client_of = client_of
        self.is_draining = False
        self._open: set[RequestHandler] = set()
        self._bytes_in = self._bytes_out = 0

    def __call__(self) -> RequestHandler:
        return RequestHandler(self, self._loop)

    @property
    def connections(self) -> list[web.RequestHandler]:
        """The open connections."""
        return list(self._open)

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return sum(connection.is_busy for connection in self._open)

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes received and sent so far."""
        return (
            self._bytes_in + sum(connection.bytes_in for connection in self._open),
            self._bytes_out + sum(connection.response.bytes_out for connection in self._open),
        )

    def connection_made(self, connection: web.RequestHandler, _transport: asyncio.Transport) -> None:
        assert isinstance(connection, RequestHandler)
        self._open.add(connection)

    def connection_lost(self, connection: web.RequestHandler, _error: BaseException | None = None) -> None:
        assert isinstance(connection, RequestHandler)
        self._open.remove(connection)
        self.limiter.release(connection.client)
        self._bytes_in += connection.bytes_in
        self._bytes_out += connection.response.bytes_out

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
        tasks = [connection.task for connection in self._open if connection.is_busy and connection.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.timeouts.send_s if timeout is None else timeout):
                # asyncio has no event for a flushed write buffer
                while any(connection.is_sending for connection in self._open):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL_S)
        for connection in list(self._open):
            connection.abort()


async def _unused(_request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError("RequestHandler.start calls HttpServer.handle instead")
