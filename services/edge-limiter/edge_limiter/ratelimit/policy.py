"""What a limit is: units per rolling window, what to do while the store is down, and the answer to one request."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

OnStoreError = Literal["local", "open", "closed"]
Source = Literal["store", "denied", "local", "open"]

MAX_LIMIT: Final = 1_000
"""A row keeps one timestamp per admission; past a thousand it no longer fits a page."""


class PolicyError(Exception):
    """A policy cannot be kept exactly; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `limit` units per client in any `window_s` seconds."""

    name: str
    limit: int
    window_s: int
    on_store_error: OnStoreError = "local"

    def __post_init__(self) -> None:
        if self.limit > MAX_LIMIT:
            raise PolicyError(f"policy {self.name}: {_cure(self.limit, self.window_s)}")


class Decision(NamedTuple):
    """`reset_s`: seconds until such a request fits again; an upper bound if it was allowed."""

    allowed: bool
    remaining: int
    reset_s: float
    source: Source


def _cure(limit: int, window_s: int) -> str:
    shorter_s = max(1, window_s * MAX_LIMIT // limit)
    fewer = limit * shorter_s // window_s
    return (
        f"a limit of {limit} in {window_s} s is above {MAX_LIMIT}, the most that is counted exactly; "
        f"the same rate in a shorter window is {min(fewer, MAX_LIMIT)} in {shorter_s} s"
    )
