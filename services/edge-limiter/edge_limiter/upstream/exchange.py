"""The port to an upstream: one request, one answer, and the three ways it can fail; and which headers may travel.

Hop-by-hop headers, and whatever `Connection` names, end here in both directions (RFC 9110, 7.6.1).
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final, Protocol, Self

from edge_limiter.memo import memo

Headers = list[tuple[str, str]]
Body = bytes | AsyncIterable[bytes]

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_MADE_ANEW: Final = frozenset(
    {
        "content-length",
        "expect",
        "forwarded",
        "host",
        "traceparent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-hurried",
        "x-request-id",
        "x-request-timeout-ms",
    }
)
_NOT_ONWARD: Final = HOP_BY_HOP | _MADE_ANEW
_NOT_BACK: Final = HOP_BY_HOP | {"content-length", "server", "x-request-id"}
_HARMLESS: Final = frozenset({"", "close", "keep-alive"})


class ExchangeError(Exception):
    """The upstream did not answer."""


class BadGateway(ExchangeError):
    """The upstream cannot be reached, broke off or answered nonsense."""


class UpstreamBusy(ExchangeError):
    """As many requests as we allow are on their way to this upstream."""


class UpstreamLate(ExchangeError):
    """No answer before the deadline."""


class Answer(Protocol):
    """The head of an upstream's answer, and its body, still encoded as the upstream sent it.

    Leaving its `with` block ends the call, and cancels it where the body was not read to its end.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Iterable[tuple[str, str]]: ...

    @property
    def length(self) -> int | None:
        """Content-Length; None when only the end of the body tells."""
        ...

    async def read(self) -> bytes:
        """The whole body. Raises ExchangeError."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ExchangeError."""
        ...

    def end(self) -> None:
        """Let the body end after what has arrived."""
        ...


class Exchange(Protocol):
    """Sends a request to one upstream, once, and gives the head of its answer, for a `with` block.

    Raises ExchangeError, or what the body raises.
    """

    async def __call__(self, method: str, target: str, headers: Headers, body: Body, timeout_s: float) -> Answer: ...


def onward_headers(headers: Iterable[tuple[str, str]], connection: str | None) -> Headers:
    """What of a client's request may travel to the upstream; the rest is made anew or ends here."""
    named = named_by(connection)
    return [(name, value) for name, value in headers if (low := name.lower()) not in _NOT_ONWARD and low not in named]


def answer_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """What of an upstream's answer may travel to the client; its length is told anew."""
    kept: Headers = []
    connection = ""
    for name, value in headers:
        low = name.lower()
        if low not in _NOT_BACK:
            kept.append((name, value))
        elif low == "connection":
            connection = f"{connection},{value}"
    named = named_by(connection)
    return [pair for pair in kept if pair[0].lower() not in named] if named else kept


def named_by(connection: str | None) -> frozenset[str]:
    """The headers that `Connection` says are for this hop alone, in lower case."""
    return _options(connection) if connection else frozenset()


@memo(256)
def _options(connection: str) -> frozenset[str]:
    return frozenset(option.strip().lower() for option in connection.split(",")) - _HARMLESS
