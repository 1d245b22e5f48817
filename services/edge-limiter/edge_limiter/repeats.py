"""Refused requests that are known again by their bytes: who floods repeats itself, and need not be read each time.

Keeps a digest of what came, never its text, and so many of them at most; oldest out first.
"""

import hashlib
from collections import OrderedDict
from typing import Final, NamedTuple

from edge_limiter.ratelimit.policy_set import Rule
from edge_limiter.routing import Route

MOST_KNOWN: Final = 16_384


class Refused(NamedTuple):
    """Under what a request was refused."""

    method: str
    route: Route
    rule: Rule
    key: bytes


class Repeats:
    """What was refused, by the peer it came from and all of its bytes: these decide what is read out of them.

    `rules` are those in force. Under others all has to be read anew, and what is known would keep the old ones, keys
    and all, in memory.
    """

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._refused: OrderedDict[tuple[str, bytes], Refused] = OrderedDict()
        self._rules: tuple[Rule, ...] = ()

    def get(self, peer: str, whole: bytes, rules: tuple[Rule, ...]) -> Refused | None:
        return self._refused.get((peer, _digest(whole))) if rules is self._rules else None

    def put(self, peer: str, whole: bytes, refused: Refused, rules: tuple[Rule, ...]) -> None:
        if rules is not self._rules:
            self._rules = rules
            self._refused.clear()
        self._refused[peer, _digest(whole)] = refused
        if len(self._refused) > self._most:
            self._refused.popitem(last=False)


def _digest(whole: bytes) -> bytes:
    return hashlib.blake2b(whole, digest_size=16).digest()
