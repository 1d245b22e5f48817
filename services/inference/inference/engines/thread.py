"""Client of an engine in this process: one thread tokenises a batch while another scores the previous one.

The threads are daemons, so that a hung device cannot keep the process alive.
"""

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from inference.engines.base import Engine, ModelCard, Row, rows_of

_END_S: Final = 10.0
_NICENESS: Final = 5
T = TypeVar("T")


class EngineThreadError(Exception):
    """A library raised StopIteration or no Exception, which would end the thread or the loop."""


class ThreadClient:
    """`start` creates the engine in the thread that will score."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()  # set by the worker only: these threads do not exit
        self._tokenizer, self._scorer = _Thread("tokenizer"), _Thread("scorer")
        self._engine: Engine

    @classmethod
    async def start(cls, create: Callable[[], Engine]) -> Self:
        """Return when the engine is created. Raises what creating it raises."""
        client = cls()
        try:
            client._engine = await client._scorer.call(create)
        except BaseException:
            client._shutdown()
            raise
        return client

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    async def score(self, texts: Sequence[str]) -> list[Row]:
        encoded = await self._tokenizer.call(self._engine.encode, texts)
        return rows_of(await self._scorer.call(self._engine.score, encoded), encoded)

    async def close(self) -> None:
        """Wait for the batch in flight unless it hangs."""
        try:
            async with asyncio.timeout(_END_S):
                await self._scorer.call(self._engine.close)
        except TimeoutError:
            pass
        finally:
            self._shutdown()

    def _shutdown(self) -> None:
        self._tokenizer.end()
        self._scorer.end()


class _Thread:
    """Calls one function at a time, at a lower priority than the event loop."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._has_ended = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Return a future for the result. Cancel it in time to skip the call. Raises RuntimeError after `end`."""
        if self._has_ended:
            raise RuntimeError("the thread has ended")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = function(*arguments)
            except BaseException as error:
                is_plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
                _set(future, future.set_exception, error if is_plain else EngineThreadError(type(error).__name__))
            else:
                _set(future, future.set_result, result)

        self._calls.put(run)
        return future

    def end(self) -> None:
        """End after the calls made so far."""
        self._has_ended = True
        self._calls.put(None)

    def _run(self) -> None:
        _lower_priority()
        while (run := self._calls.get()) is not None:
            run()
            del run  # otherwise the last batch stays in memory until the next


def _set(future: "asyncio.Future[Any]", setter: Callable[[Any], None], value: Any) -> None:
    def set_once() -> None:
        if not future.done():
            setter(value)

    with suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(set_once)


def _lower_priority() -> None:
    """Let the event loop's thread go first: its work takes microseconds."""
    if sys.platform == "linux":  # elsewhere niceness is per process
        thread = threading.get_native_id()
        with suppress(OSError):  # forbidden: only slower
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
