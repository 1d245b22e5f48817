"""Fresh results that this process keeps for a moment, so that a rush of readers costs one look at the store."""

from collections.abc import Callable
from typing import Final

MAX_KEYS: Final = 64


class LocalCache:
    """A copy is served for at most `keep_s`, and ends sooner when it is forgotten."""

    def __init__(self, keep_s: float, now: Callable[[], float]) -> None:
        self._keep_s = keep_s
        self._now = now
        self._copies: dict[str, tuple[str, float, float]] = {}  # payload, age when it came, when that was

    def find(self, key: str) -> tuple[str, float] | None:
        """The payload and its age."""
        payload, age_s, kept_at_s = self._copies.get(key, ("", 0.0, float("-inf")))
        kept_s = self._now() - kept_at_s
        return (payload, age_s + kept_s) if kept_s < self._keep_s else None

    def keep(self, key: str, payload: str, age_s: float) -> None:
        if len(self._copies) >= MAX_KEYS:
            self._copies.clear()
        self._copies[key] = (payload, age_s, self._now())

    def forget(self, key: str) -> None:
        self._copies.pop(key, None)

    def forget_all(self) -> None:
        self._copies.clear()
