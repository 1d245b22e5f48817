"""Heads and chunks as bytes. Refuses nothing: what comes in here was checked, or made by us."""

import functools
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from edge_limiter.upstream.headers import Headers

LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def body_head(length: int | None, keeps_alive: bool) -> bytes:
    """The shortest head before such a body; without a length it is chunked."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    connection = "keep-alive" if keeps_alive else "close"
    return f"POST / HTTP/1.1\r\nConnection: {connection}\r\n{framing}\r\n\r\n".encode("latin-1")


def response_head(status: int, headers: Headers, framing: str) -> bytes:
    """`framing` is whole header lines: how the body ends, and whether the connection does."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{line}{lines}{framing}\r\n".encode("latin-1")


def chunk(piece: bytes) -> bytes:
    """One chunk of a body whose length nobody knows yet."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def date() -> tuple[str, str]:
    """The Date header, made anew once a second."""
    return _date(int(time.time()))


@functools.lru_cache(1)
def _date(second: int) -> tuple[str, str]:
    return "Date", formatdate(second, usegmt=True)
