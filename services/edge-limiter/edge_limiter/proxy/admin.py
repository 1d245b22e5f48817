"""Admin access to single rows: for holders of the admin token or, without one, for clients on this machine."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.http.problems import Problem
from common.runtime.loopback import is_localhost_header

SCHEME: Final = "bearer"
_SENT_BY_PROXIES: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""A client behind a proxy may be on another machine."""
_NOT_SET: Final = (
    "No admin token is set, and other machines can reach the edge, perhaps through a proxy: set EDGE_ADMIN_TOKEN."
)
_NOT_LOCAL: Final = (
    "No admin token is set, so this takes only direct requests whose Host is localhost or 127.0.0.1: "
    "set EDGE_ADMIN_TOKEN."
)
"""Other names could be a web page's own, pointed at this machine (DNS rebinding)."""


class NoAdmin(Problem):
    """The request is not an administrator's."""


def wrong_token() -> NoAdmin:
    challenge = {"WWW-Authenticate": 'Bearer realm="sluice"'}
    return NoAdmin(401, "Send the admin token as Authorization: Bearer.", headers=challenge)


@dataclass(frozen=True, slots=True)
class Admin:
    """`token` is empty if none is set. `is_loopback`: only this machine reaches the edge, and no proxy is declared."""

    token: str
    is_loopback: bool

    def check(self, fields: Mapping[str, str]) -> None:
        """Raise NoAdmin unless a request with these headers is an administrator's."""
        if self.token:
            if not self.holds(fields.get("authorization")):
                raise wrong_token()
        elif not self.is_loopback:
            raise NoAdmin(403, _NOT_SET)
        elif not is_localhost_header(fields.get("host", "")) or not _SENT_BY_PROXIES.isdisjoint(fields):
            raise NoAdmin(403, _NOT_LOCAL)

    def holds(self, authorization: str | None) -> bool:
        """Whether this header has the token, compared in constant time."""
        if not self.token or not authorization:
            return False
        scheme, _, token = authorization.partition(" ")
        sent = token.strip().encode("latin-1", "surrogateescape")  # the bytes as received
        return scheme.lower() == SCHEME and hmac.compare_digest(sent, self.token.encode())
