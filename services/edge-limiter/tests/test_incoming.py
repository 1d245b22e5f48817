"""Whatever a client sends, in whatever pieces: the same requests, and the same refusal as their last."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_limiter.body import UNBOUNDED
from edge_limiter.incoming import Incoming, Stage

Read = tuple[str, str, list[tuple[str, str]], int, bool, bytes]
"""Method, target, headers, status of its refusal, whether its body is whole, and what came of that."""


def read(pieces: list[bytes]) -> tuple[list[Read], Stage]:
    incoming = Incoming("192.0.2.1", UNBOUNDED, 0.0, lambda: None, lambda: None, lambda: None)
    for piece in pieces:
        if incoming.stage != "ended" and (refusal := incoming.read(piece, 0.0)) is not None:
            incoming.refuse(refusal)
    return [
        (
            request.method,
            request.target,
            list(request.headers),
            request.refusal.status if request.refusal is not None else 0,
            request.body.is_complete,
            request.body.taken(1 << 20),
        )
        for request in incoming.requests
    ], incoming.stage


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)
HEAD = b"POST /predict HTTP/1.1\r\nHost: edge\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans(), st.booleans()), max_size=5), PLACES)
def test_sound_requests_in_any_pieces__are_read_whole(
    requests: list[tuple[bytes, bool, bool]], places: list[int]
) -> None:
    data = b""
    for body, is_chunked, offers in requests:
        data += HEAD + (OFFER if offers else b"")
        if is_chunked:
            parts = [body[i : i + 50] for i in range(0, len(body), 50)]
            framed = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
            data += b"Transfer-Encoding: chunked\r\n\r\n%b0\r\nX-Trailer: y\r\n\r\n" % framed
        else:
            data += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    found, stage = read(cut(data, places))
    assert [(method, target, *rest) for method, target, _, *rest in found] == [
        ("POST", "/predict", 0, True, body) for body, _, _ in requests
    ]
    assert stage == "between"


SCRAPS = [
    HEAD,
    b"GET /models HTTP/1.1\r\nHost: edge\r\n",
    b"GET / HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    OFFER,
    b"Upgrade: websocket\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"X: y\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SCRAPS), st.binary(max_size=20)), max_size=20), PLACES)
def test_any_bytes__give_the_same_requests_in_any_pieces(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = read([data] if data else [])
    assert read(cut(data, places)) == whole
    assert all(not status for *_, status, _, _ in whole[0][:-1])
