"""Who may write and read single rows: holders of the admin token; without one, callers on this machine."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.runtime.loopback import is_localhost_header

SCHEME: Final = "bearer"
OF_PROXIES: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""Whoever comes through a proxy may be anywhere."""


class NoAdmin(Exception):
    """The request is not an administrator's."""


class TokenNotSet(NoAdmin):
    """The edge is reachable from other machines and EDGE_ADMIN_TOKEN is not set."""


class TokenRequired(NoAdmin):
    """The token is missing or wrong."""


class NotLocal(NoAdmin):
    """No token is set, and the request came through a proxy, or for another name: a web page's, made to lead here."""


@dataclass(frozen=True, slots=True)
class Admin:
    """`token` is empty when none is set; `is_loopback`: only this machine reaches the edge, through no proxy."""

    token: str
    is_loopback: bool

    def check(self, fields: Mapping[str, str]) -> None:
        """Let a request with these headers pass if it is an administrator's. Raises NoAdmin, by the kinds above."""
        if self.token:
            if not self.holds(fields.get("authorization")):
                raise TokenRequired
        elif not self.is_loopback:
            raise TokenNotSet
        elif not is_localhost_header(fields.get("host", "")) or not OF_PROXIES.isdisjoint(fields):
            raise NotLocal

    def holds(self, authorization: str | None) -> bool:
        """Whether this is our token, compared in constant time: such a header is not passed on."""
        if not self.token or not authorization:
            return False
        scheme, _, token = authorization.partition(" ")
        sent = token.strip().encode("latin-1", "surrogateescape")  # the bytes that came
        return scheme.lower() == SCHEME and hmac.compare_digest(sent, self.token.encode())
