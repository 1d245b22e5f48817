"""Refused requests that are known again by their bytes: who floods repeats itself, and need not be read each time.

Keeps a digest of what came, never its text, and so many of them at most; oldest out first.
"""

import hashlib
from collections import OrderedDict
from typing import Final, NamedTuple

from edge_limiter.policies import Rule
from edge_limiter.routing import Route

MOST_KNOWN: Final = 16_384


class Refused(NamedTuple):
    """Under what a request was refused, and the rules in force then: under others it may have to be answered."""

    method: str
    route: Route
    rule: Rule
    key: bytes
    rules: tuple[Rule, ...]


class Repeats:
    """What was refused, by the peer it came from and all of its bytes: these decide what is read out of them."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._refused: OrderedDict[tuple[str, bytes], Refused] = OrderedDict()

    def get(self, peer: str, whole: bytes) -> Refused | None:
        return self._refused.get((peer, _digest(whole)))

    def put(self, peer: str, whole: bytes, refused: Refused) -> None:
        self._refused[peer, _digest(whole)] = refused
        if len(self._refused) > self._most:
            self._refused.popitem(last=False)


def _digest(whole: bytes) -> bytes:
    return hashlib.blake2b(whole, digest_size=16).digest()
