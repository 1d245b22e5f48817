"""A TCP proxy that can disconnect, hang or delay."""

import asyncio
from contextlib import suppress
from typing import Final, Literal

Mode = Literal["pass", "cut", "hang", "delay"]

CHUNK_BYTES: Final = 1 << 16


class Proxy:
    """Forwards connections to one port of 127.0.0.1. A new mode also applies to open connections.

    `cut` resets open and new connections. `hang` accepts bytes and forwards none until the mode changes. `delay`
    delays every chunk by `delay_s` in each direction.
    """

    def __init__(self, target_port: int, *, delay_s: float = 0.1) -> None:
        self._target_port = target_port
        self._delay_s = delay_s
        self._mode: Mode = "pass"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._tasks)

    async def start(self) -> int:
        """Start listening. Returns the port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def set(self, mode: Mode) -> None:
        """Set the mode."""
        self._mode = mode
        if mode == "hang":
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode == "cut":
            self._reset_all()

    async def close(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.close()
        self._flowing.set()
        self._reset_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            writer.transport.abort()
            return
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(far_writer)
            if self._mode == "cut":
                return
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer))
                both.create_task(self._copy(far_reader, writer))
        except* OSError:
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self._mode == "delay":
                await asyncio.sleep(self._delay_s)
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
