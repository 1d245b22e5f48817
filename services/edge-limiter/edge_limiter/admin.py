"""Who may write and read single rows: holders of the admin token; without one, only callers of a loopback edge."""

import hmac
import ipaddress
from dataclasses import dataclass

SCHEME = "bearer"


class NoAdmin(Exception):
    """The request is not an administrator's."""


class TokenNotSet(NoAdmin):
    """The edge is reachable from other machines and EDGE_ADMIN_TOKEN is not set."""


class TokenRequired(NoAdmin):
    """The token is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Admin:
    """`token` is empty when none is set; `is_loopback`: only this machine can reach the edge."""

    token: str
    is_loopback: bool

    def check(self, authorization: str | None) -> None:
        """Let an administrator pass. Raises TokenNotSet, TokenRequired."""
        if self.token:
            if not self.holds(authorization):
                raise TokenRequired
        elif not self.is_loopback:
            raise TokenNotSet

    def holds(self, authorization: str | None) -> bool:
        """Whether this is our token, compared in constant time: such a header is not passed on."""
        if not self.token or not authorization:
            return False
        scheme, _, token = authorization.partition(" ")
        sent = token.strip().encode("latin-1", "surrogateescape")  # the bytes that came
        return scheme.lower() == SCHEME and hmac.compare_digest(sent, self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether a listener on `host` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
