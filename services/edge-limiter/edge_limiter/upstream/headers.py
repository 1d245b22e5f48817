"""Which headers pass the proxy, and the head of a request to an upstream.

Hop-by-hop headers, and those that `Connection` lists, end here in both directions (RFC 9110, 7.6.1).
"""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[str, str]]

HOP_BY_HOP: Final = frozenset(
    "connection http2-settings keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
_SET_BY_PROXY: Final = frozenset(
    "content-length expect forwarded host traceparent x-forwarded-for x-forwarded-host x-forwarded-port "
    "x-forwarded-proto x-real-ip x-request-id x-request-timeout-ms".split()
)
_NOT_IN_REQUESTS: Final = HOP_BY_HOP | _SET_BY_PROXY
_NOT_IN_RESPONSES: Final = HOP_BY_HOP | {"content-length", "server", "x-request-id"}
_STANDARD_OPTIONS: Final = frozenset({"", "close", "keep-alive"})


def forwardable_request_headers(headers: Iterable[tuple[str, str]], connection: str | None) -> Headers:
    """Return the client's headers that may reach the upstream. `connection` is the value of its `Connection` header."""
    options = connection_options(connection)
    excluded = _NOT_IN_REQUESTS | options if options else _NOT_IN_REQUESTS
    return [pair for pair in headers if pair[0].lower() not in excluded]


def forwardable_response_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the upstream's headers that may reach the client. The server sets `Content-Length` itself."""
    forwardable: Headers = []
    connection = ""
    for pair in headers:
        name = pair[0].lower()
        if name not in _NOT_IN_RESPONSES:
            forwardable.append(pair)
        elif name == "connection":
            connection = f"{connection},{pair[1]}"
    options = connection_options(connection)
    return [pair for pair in forwardable if pair[0].lower() not in options] if options else forwardable


def connection_options(connection: str | None) -> frozenset[str]:
    """Return the lower-case names of the headers that a `Connection` header limits to one hop."""
    if not connection or connection.lower() in _STANDARD_OPTIONS:
        return frozenset()
    return frozenset(option.strip().lower() for option in connection.split(",")) - _STANDARD_OPTIONS


def request_head(method: str, target: str, host: str, headers: Headers, framing: str) -> bytes:
    """Encode a request head without its final empty line. `framing` is a complete header line, or empty."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}{framing}".encode("latin-1")
