"""Owns an engine in this process: one thread reads for it and another scores, so that a batch is read while another is
scored. The threads are daemons, for one that a device hangs must not keep the process from ending.
"""

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from inference.engines.base import Answer, Encoded, Engine, ModelCard, rows_of

_END_S: Final = 10.0
_NICENESS: Final = 5
T = TypeVar("T")


class EngineThreadError(Exception):
    """What a library raised would end its thread, or the loop, if it went on: no Exception, or StopIteration."""


class ThreadClient:
    """`start` makes the engine in the thread that will score."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()  # never set: these threads do not end by themselves
        self._reader, self._scorer = _Thread("reader"), _Thread("scorer")
        self._engine: Engine

    @classmethod
    async def start(cls, create: Callable[[], Engine]) -> Self:
        """Return when the engine is made. Raises what making it raises."""
        host = cls()
        try:
            host._engine = await host._scorer.call(create)
        except BaseException:
            host._shutdown()
            raise
        return host

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    async def score(self, texts: Sequence[str]) -> Answer:
        read, tokenize_s = await self._reader.call(self._read, texts)
        return Answer(rows_of(await self._scorer.call(self._engine.score, read), read), tokenize_s)

    async def close(self) -> None:
        """Waits for a batch that is being scored, but not for one that hangs."""
        try:
            async with asyncio.timeout(_END_S):
                await self._scorer.call(self._engine.close)
        except TimeoutError:
            pass
        finally:
            self._shutdown()

    def _read(self, texts: Sequence[str]) -> tuple[list[Encoded], float]:
        started_s = time.perf_counter()
        return self._engine.encode(texts), time.perf_counter() - started_s

    def _shutdown(self) -> None:
        self._reader.end()
        self._scorer.end()


class _Thread:
    """Calls one function after the other, and gives way to the event loop."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._has_ended = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """What the function returns or raises; a call whose future was cancelled in time is left out.

        Raises RuntimeError after `end`.
        """
        if self._has_ended:
            raise RuntimeError("the thread was sent home")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = function(*arguments)
            except BaseException as error:
                can_travel = isinstance(error, Exception) and not isinstance(error, StopIteration)
                _tell(future, future.set_exception, error if can_travel else EngineThreadError(type(error).__name__))
            else:
                _tell(future, future.set_result, result)

        self._calls.put(run)
        return future

    def end(self) -> None:
        """After what it was asked before."""
        self._has_ended = True
        self._calls.put(None)

    def _run(self) -> None:
        _lower_priority()
        while (run := self._calls.get()) is not None:
            run()
            del run  # or the last batch stays until the next comes


def _tell(future: "asyncio.Future[Any]", how: Callable[[Any], None], what: Any) -> None:
    def tell() -> None:
        if not future.done():
            how(what)

    with suppress(RuntimeError):  # the loop is closed: nobody waits
        future.get_loop().call_soon_threadsafe(tell)


def _lower_priority() -> None:
    """Let the event loop's thread go first: what it has to do takes microseconds, this one computes for longer."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        thread = threading.get_native_id()
        with suppress(OSError):  # where that is forbidden, it only answers later
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
