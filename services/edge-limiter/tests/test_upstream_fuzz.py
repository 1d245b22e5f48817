"""Whatever an upstream sends, in whatever pieces: the whole right answer, or an error, and never a second one."""

import asyncio
import itertools
from collections.abc import Callable
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_limiter.upstream.connection import Stale, UpstreamConnection
from edge_limiter.upstream.exchange import BadGateway

Result = tuple[int, bytes] | str


class FakeTransport:
    """Takes what is written, and remembers how it ended."""

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
    """What the caller of an exchange gets when these pieces come and the connection ends; and if it would be kept."""
    connection = UpstreamConnection(1.0, lambda connection: None)
    transport = FakeTransport()
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    call = connection.send(method, b"", b"")
    for piece in pieces:
        if transport.is_open:
            connection.data_received(piece)
    kept = connection._is_done and connection._keeps_alive and transport.is_open
    connection.connection_lost(None)
    try:
        answer = await call
        return (answer.status, await answer.read()), kept
    except (BadGateway, Stale) as error:
        return type(error).__name__, False


def run(make: Callable[[], list[bytes]], method: str = "GET") -> tuple[Result, bool]:
    return asyncio.run(receive(make(), method))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)
BODIES = st.binary(max_size=300)
STATUSES = st.sampled_from([200, 201, 404, 429, 500, 503])


@settings(max_examples=150, deadline=None)
@given(STATUSES, BODIES, PLACES, st.integers(1, 50), st.booleans(), st.booleans())
def test_sound_answer_in_any_pieces__is_received_whole(
    status: int, body: bytes, places: list[int], chunk: int, chunked: bool, interim: bool
) -> None:
    head = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" if interim else b""
    head += b"HTTP/1.1 %d Any\r\n" % status
    if chunked:
        parts = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    assert run(lambda: cut(data, places)) == ((status, body), True)


@settings(max_examples=150, deadline=None)
@given(BODIES, st.integers(1, 10_000), PLACES)
def test_answer_cut_anywhere__is_never_taken_for_a_whole_one(body: bytes, missing: int, places: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) + 1, body)
    data = data[: max(0, len(data) - missing % (len(data) + 1))]
    result, kept = run(lambda: cut(data, places))
    assert result in ("BadGateway", "Stale") and not kept


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
    PLACES,
    st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_any_bytes__give_the_same_result_in_any_pieces_and_never_a_surprise(
    parts: list[bytes], places: list[int], method: str
) -> None:
    data = b"".join(parts)
    whole, _ = run(lambda: [data] if data else [], method)
    pieces, kept = run(lambda: cut(data, places), method)
    assert pieces == whole
    if kept:
        assert isinstance(pieces, tuple)


def test_bytes_after_the_answer__end_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert run(lambda: [data, b"HTTP/1.1 200 OK\r\n"]) == ((200, b"ok"), False)
    assert run(lambda: [data + data]) == ((200, b"ok"), False)


def test_head_past_its_limits__is_refused() -> None:
    lines = b"".join(b"X: %d\r\n" % number for number in range(1_000))
    assert run(lambda: [b"HTTP/1.1 200 OK\r\n" + lines])[0] == "BadGateway"
    assert run(lambda: [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000])[0] == "BadGateway"


def test_answer_to_head__ends_with_its_head() -> None:
    assert run(lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], "HEAD") == ((200, b""), True)
