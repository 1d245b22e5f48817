"""Admin access to single rows: for holders of the admin token or, without one, for clients on this machine."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.runtime.loopback import is_localhost_header

SCHEME: Final = "bearer"
_SENT_BY_PROXIES: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""A client behind a proxy may be on another machine."""


class NoAdmin(Exception):
    """The request is not an administrator's."""


class TokenNotSet(NoAdmin):
    """The edge is reachable from other machines and EDGE_ADMIN_TOKEN is not set."""


class TokenRequired(NoAdmin):
    """The token is missing or wrong."""


class NotLocal(NoAdmin):
    """No token is set, and the request came through a proxy, or its Host is not this machine (DNS rebinding)."""


@dataclass(frozen=True, slots=True)
class Admin:
    """`token` is empty if none is set. `is_loopback`: only this machine reaches the edge, and no proxy is declared."""

    token: str
    is_loopback: bool

    def check(self, fields: Mapping[str, str]) -> None:
        """Raise NoAdmin unless a request with these headers is an administrator's."""
        if self.token:
            if not self.holds(fields.get("authorization")):
                raise TokenRequired
        elif not self.is_loopback:
            raise TokenNotSet
        elif not is_localhost_header(fields.get("host", "")) or not _SENT_BY_PROXIES.isdisjoint(fields):
            raise NotLocal

    def holds(self, authorization: str | None) -> bool:
        """Whether this header has the token, compared in constant time."""
        if not self.token or not authorization:
            return False
        scheme, _, token = authorization.partition(" ")
        sent = token.strip().encode("latin-1", "surrogateescape")  # the bytes as received
        return scheme.lower() == SCHEME and hmac.compare_digest(sent, self.token.encode())
