"""One request as the server parsed and validated it: its head, and its body.

Refuses every head that another HTTP parser could read differently. llhttp has already refused bare line feeds, folded
lines, and Content-Length beside Transfer-Encoding. Offers of another protocol such as h2c are ignored (RFC 9110, 7.8),
except WebSocket, which the client could not do without.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

DRAIN_BYTES: Final = 64 << 10
"""The rest of a refused request's body is read if it has a declared length up to this: the connection is reused."""
MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEAD_BYTES: Final = 32 << 10
MAX_HEADERS: Final = 100
MAX_CACHED_NAME_BYTES: Final = 64
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Headers = list[tuple[str, str]]

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.ASCII | re.IGNORECASE)
_SINGLETONS: Final = frozenset(
    "authorization content-encoding expect inference-header-content-length x-api-key".split()
)
"""Of two such lines one server would use the first, another the last. aiohttp's parser refuses further ones."""
_SHADOWED: Final = frozenset(
    "authorization connection content-encoding content-length content-type forwarded host proxy-authorization "
    "proxy-connection transfer-encoding via x-api-key x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip "
    "x-request-id x-request-timeout-ms".split()
)
"""CGI-style servers cannot tell `X_Forwarded_For` from `X-Forwarded-For`."""
_DECISIVE: Final = frozenset(
    "authorization content-encoding content-type inference-header-content-length x-api-key".split()
)
"""Headers that determine cost and permissions. If `Connection` listed one, it would be removed before the upstream."""


class BadRequest(Exception):
    """The server refuses the request with this status; `detail` is for the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BodyTooLarge(Exception):
    """The body is longer than its reader allows."""


class ClientDisconnected(Exception):
    """The client closed the connection before the request or its response was complete."""


@dataclass(slots=True, eq=False)
class Request:
    """`fields` has lower-case names, repeated lines joined. `error` is set if the server refuses the request.

    `on_first_wait` is called once, when a reader first has to wait for the body.
    """

    method: str
    target: str
    headers: Headers
    fields: Mapping[str, str]
    peer: str
    content: StreamReader = EMPTY_PAYLOAD
    is_http10: bool = False
    keep_alive: bool = False
    error: BadRequest | None = None
    on_first_wait: Callable[[], None] | None = None
    length: int | None = field(init=False)
    _body: bytes | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        length = self.fields.get("content-length")
        self.length = int(length) if length is not None and length.isdigit() else None

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has arrived."""
        return self.content.is_eof()

    @property
    def is_drainable(self) -> bool:
        """Whether the rest of the body is short enough to be read and discarded."""
        if self.content.is_eof():
            return True
        return self.length is not None and self.length <= DRAIN_BYTES and "expect" not in self.fields

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body, also when called again. Raises BodyTooLarge, BadRequest, ClientDisconnected."""
        if self._body is None:
            if self.content.is_eof():
                self._body = self.content.read_nowait()
                if len(self._body) > max_bytes:
                    raise BodyTooLarge
            else:
                self._body = await self._receive(max_bytes)
        return self._body

    async def _receive(self, max_bytes: int) -> bytes:
        if self.on_first_wait is not None:
            self.on_first_wait()
            self.on_first_wait = None
        body = bytearray()
        while chunk := await self.content.readany():
            body += chunk
            if len(body) > max_bytes:
                raise BodyTooLarge
        return bytes(body)


def parse_request(
    message: RawRequestMessage, content: StreamReader, peer: str, send_continue: Callable[[], None]
) -> Request:
    """Return the request of a parsed head. Raises BadRequest."""
    headers, fields = _parse_headers(message.raw_headers)
    _validate_head(message.method, message.version, fields)
    is_http10 = message.version == (1, 0)
    return Request(
        message.method,
        message.path if message.path.startswith("/") else _origin_form(message.path, fields),
        headers,
        fields,
        peer,
        content,
        is_http10=is_http10,
        keep_alive=not message.should_close and not is_http10,
        on_first_wait=send_continue if "expect" in fields else None,
    )


def malformed() -> BadRequest:
    return BadRequest(400, "The request is not well-formed HTTP/1.1.")


def head_too_large() -> BadRequest:
    return BadRequest(431, f"The head is larger than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields.")


def _not_chunked() -> BadRequest:
    return BadRequest(501, "Transfer-Encoding must be chunked.")


def from_parse_error(error: Exception) -> BadRequest:
    """Return the refusal for what aiohttp's parser raised while it was reading a head."""
    if isinstance(error, LineTooLong):
        is_target = error.args[1] == MAX_TARGET_BYTES
        detail = f"The request target is longer than {MAX_TARGET_BYTES} bytes."
        return BadRequest(414, detail) if is_target else head_too_large()
    message = error.message if isinstance(error, HttpProcessingError) else ""
    if message.startswith("Too many headers"):
        return head_too_large()
    return _not_chunked() if message.startswith("Request has invalid `Transfer-Encoding`") else malformed()


def _parse_headers(lines: Iterable[tuple[bytes, bytes]]) -> tuple[Headers, dict[str, str]]:
    """Return the headers as received, and their values by lower-case name with repeated lines joined."""
    headers: Headers = []
    fields: dict[str, str] = {}
    size_bytes = 0
    for raw_name, raw_value in lines:
        cached = len(raw_name) <= MAX_CACHED_NAME_BYTES
        name, lower = _cached_name(raw_name) if cached else _decode_name(raw_name)
        value = raw_value.decode("latin-1")
        size_bytes += len(raw_name) + len(raw_value) + 4
        headers.append((name, value))
        if lower not in fields:
            fields[lower] = value
        elif lower in _SINGLETONS:
            raise BadRequest(400, "A header that may occur only once is repeated.")
        else:
            fields[lower] = f"{fields[lower]},{value}"
    if size_bytes > MAX_HEAD_BYTES:
        raise head_too_large()
    return headers, fields


def _validate_head(method: str, version: tuple[int, int], fields: Mapping[str, str]) -> None:
    """Raise BadRequest unless every parser agrees on this head. `fields` has lower-case names."""
    if version not in ((1, 1), (1, 0)):
        raise BadRequest(505, "Send HTTP/1.1.")
    if method not in METHODS:
        raise BadRequest(501, "This method is not supported.")
    if not _HOST.fullmatch(fields.get("host", "" if version == (1, 1) else "-")):
        raise BadRequest(400, "The Host header is missing or malformed.")
    if "transfer-encoding" in fields:
        _validate_encoding(version, fields)
    if "upgrade" in fields and any(name.startswith("websocket") for name in _items(fields["upgrade"])):
        raise BadRequest(501, "WebSocket is not supported.")
    if "expect" in fields and fields["expect"].lower() != "100-continue":
        raise BadRequest(417, "The only supported expectation is 100-continue.")
    if "connection" in fields and not _DECISIVE.isdisjoint(_items(fields["connection"])):
        raise BadRequest(400, "Connection names an end-to-end header.")


def _origin_form(target: str, fields: Mapping[str, str]) -> str:
    """Return the path and query of a target in absolute form (RFC 9112, 3.2.2); other forms unchanged.

    The authority must be the one in `Host`: an upstream that believes the other one would serve another site.
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target
    authority, rest = absolute.groups()
    if authority.lower() != fields.get("host", authority).lower():
        raise BadRequest(400, "The authority in the request target differs from the Host header.")
    return rest if rest.startswith("/") else f"/{rest}"


def _decode_name(raw: bytes) -> tuple[str, str]:
    """Return a header name as received and in lower case."""
    name = raw.decode("latin-1")
    lower = name.lower()
    if "_" in lower and lower.replace("_", "-") in _SHADOWED:
        raise BadRequest(400, "A header name with underscores could pass for another header.")
    return name, lower


_cached_name = functools.lru_cache(1024)(_decode_name)


def _items(value: str) -> list[str]:
    return [item.strip().lower() for item in value.split(",")]


def _validate_encoding(version: tuple[int, int], fields: Mapping[str, str]) -> None:
    if version == (1, 0):
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding.")
    if not fields["transfer-encoding"]:
        raise malformed()
    if fields["transfer-encoding"].lower() != "chunked":
        raise _not_chunked()
    if "content-length" in fields:
        raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other.")
