"""Properties of the response parser: any bytes, cut anywhere, give one complete response or an error."""

import asyncio
import itertools
from collections.abc import Callable
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_limiter.upstream.connection import ConnectionClosed, UpstreamConnection
from edge_limiter.upstream.errors import BadGateway

Result = tuple[int, bytes] | str


class FakeTransport:
    """Discards what is written, and records whether it was closed."""

    def __init__(self) -> None:
        self.is_open = True

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return not self.is_open

    def abort(self) -> None:
        self.is_open = False


async def receive(pieces: list[bytes], method: str = "GET") -> tuple[Result, bool]:
    """Return what the caller gets if these pieces arrive and the connection ends, and whether it could be reused."""
    connection = UpstreamConnection(idle_timeout_s=1.0, expires_at=0.0)
    transport = FakeTransport()
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    call = connection.send(method, b"", b"")
    for piece in pieces:
        if transport.is_open:
            connection.data_received(piece)
    is_reusable = connection._is_complete and connection._keeps_alive and transport.is_open
    connection.connection_lost(None)
    try:
        response = await call
        return (response.status, await response.read()), is_reusable
    except (BadGateway, ConnectionClosed) as error:
        return type(error).__name__, False


def run(make: Callable[[], list[bytes]], method: str = "GET") -> tuple[Result, bool]:
    return asyncio.run(receive(make(), method))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
BODIES = st.binary(max_size=300)
STATUSES = st.sampled_from([200, 201, 404, 429, 500, 503])


@settings(max_examples=150, deadline=None)
@given(STATUSES, BODIES, CUTS, st.integers(1, 50), st.booleans(), st.booleans())
def test_valid_response__cut_anywhere__is_received_complete(
    status: int, body: bytes, cuts: list[int], chunk: int, chunked: bool, interim: bool
) -> None:
    head = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" if interim else b""
    head += b"HTTP/1.1 %d Any\r\n" % status
    if chunked:
        parts = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    assert run(lambda: split(data, cuts)) == ((status, body), True)


@settings(max_examples=150, deadline=None)
@given(BODIES, st.integers(1, 10_000), CUTS)
def test_truncated_response__is_an_error(body: bytes, missing: int, cuts: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) + 1, body)
    data = data[: max(0, len(data) - missing % (len(data) + 1))]
    result, is_reusable = run(lambda: split(data, cuts))
    assert result in ("BadGateway", "ConnectionClosed") and not is_reusable


SCRAPS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"HTTP/1.1 204 N\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"X: y\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(SCRAPS)), max_size=8),
    CUTS,
    st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_any_bytes__give_the_same_result_however_they_are_cut(parts: list[bytes], cuts: list[int], method: str) -> None:
    data = b"".join(parts)
    whole, _ = run(lambda: [data] if data else [], method)
    pieces, is_reusable = run(lambda: split(data, cuts), method)
    assert pieces == whole
    if is_reusable:
        assert isinstance(pieces, tuple)


def test_bytes_after_a_response__close_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert run(lambda: [data, b"HTTP/1.1 200 OK\r\n"]) == ((200, b"ok"), False)
    assert run(lambda: [data + data]) == ((200, b"ok"), False)


def test_response_to_head__has_no_body() -> None:
    assert run(lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], "HEAD") == ((200, b""), True)
