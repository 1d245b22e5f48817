"""Who in this process waits for news of which key; it asks nobody."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completion:
    """A flight ended, or may have. Where its leader told the result, `token` says whose it is."""

    token: str = ""
    payload: str | None = None


class Waiters:
    """News by key, each told once to all who listen at that moment."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Future[Completion]]] = {}

    @contextmanager
    def listening(self, key: str) -> Iterator[asyncio.Future[Completion]]:
        """The next news of `key`; listen before the first look, so that none falls between."""
        news: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        listeners = self._listeners.setdefault(key, set())
        listeners.add(news)
        try:
            yield news
        finally:
            listeners.discard(news)
            if not listeners:
                self._listeners.pop(key, None)

    def tell(self, key: str, ended: Completion) -> None:
        for news in self._listeners.get(key, ()):
            if not news.done():
                news.set_result(ended)

    def tell_all(self, ended: Completion) -> None:
        for key in self._listeners:
            self.tell(key, ended)
