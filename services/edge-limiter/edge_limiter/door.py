"""All client connections: which are taken, how long they may take, and how they end."""

import asyncio
from collections.abc import Set
from typing import Final, Self

from aiohttp import web

from edge_limiter.body import UNBOUNDED, Room
from edge_limiter.connection import Again, Connection, Handle
from edge_limiter.limits import Patience
from edge_limiter.pages import Pages
from edge_limiter.places import Places
from edge_limiter.unread import Unread

SWEEP_S: Final = 0.5


class Door:
    """Makes the protocols of a server. `run` must be running: it is what ends slow clients."""

    def __init__(
        self,
        handle: Handle,
        patience: Patience,
        pages: Pages,
        places: Places,
        room: Room = UNBOUNDED,
        unread: Unread | None = None,
        again: Again = lambda _peer, _data: None,
    ) -> None:
        self.handle = handle
        self.again = again
        self.patience = patience
        self.room = room
        self.unread = unread or Unread()
        self.is_draining = False
        self._pages = pages
        self._pages_server: web.Server | None = None
        self._places = places
        self._connections: set[Connection] = set()
        self._bytes_in = self._bytes_out = 0

    def before(self, server: web.Server) -> Self:
        """Stand before the server of the pages."""
        self._pages.server = self._pages_server = server
        return self

    def __call__(self) -> Connection:
        return Connection(self)

    @property
    def connections(self) -> Set[Connection]:
        """Those that are open."""
        return self._connections

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return sum(connection.is_busy for connection in self._connections)

    @property
    def bytes(self) -> tuple[int, int]:
        """Received and sent so far."""
        open_ = self._connections
        return (
            self._bytes_in + sum(connection.bytes_in for connection in open_),
            self._bytes_out + sum(connection.out.bytes for connection in open_),
        )

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        is_taken = self._places.take(connection.peer)
        if is_taken:
            self._connections.add(connection)
        return is_taken

    def closed(self, connection: Connection) -> None:
        if connection not in self._connections:  # it was not taken
            return
        self._connections.remove(connection)
        self._places.leave(connection.peer)
        self._bytes_in += connection.bytes_in
        self._bytes_out += connection.out.bytes

    async def run(self) -> None:
        """Look at every connection twice a second until cancelled: one timer for all is cheaper than one for each."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        for connection in list(self._connections):
            connection.check(now)
        if self.is_draining:
            self._end_streams()

    def start_draining(self) -> None:
        """From now on close each connection after its answer, and end the answers that have no end."""
        self.is_draining = True
        self._end_streams()

    def _end_streams(self) -> None:
        for connection in list(self._connections):
            connection.out.start_draining()

    def pre_shutdown(self) -> None:
        """Close what is idle; the rest closes after its answer."""
        self.start_draining()
        if self._pages_server is not None:
            self._pages_server.pre_shutdown()
        for connection in list(self._connections):
            connection.drain()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Wait for the answers, at most `timeout`, then cut off the rest."""
        tasks = [connection.task for connection in self._connections if connection.task and not connection.task.done()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._pages_server is not None:
            await self._pages_server.shutdown(timeout)
        for connection in list(self._connections):
            connection.abort()
