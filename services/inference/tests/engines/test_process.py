"""Messages of the scoring process, with the scripted engine at the other end of a socket."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import Row
from inference.engines.process import (
    FAILED,
    LENGTH,
    READY,
    message,
    pack_rows,
    pack_texts,
    serve,
    unpack_rows,
    unpack_texts,
)

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))
SCORES = st.floats(allow_nan=False)


@pytest.fixture
def end(stage: Any) -> Iterator[socket.socket]:
    """One end of a socket whose other end is served."""
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as said:
        serving = threading.Thread(target=serve, args=(stage.make(), said, theirs))
        serving.start()
        with ours:
            yield ours
        serving.join(60)  # it ends with the other end
        assert not serving.is_alive()


def ask(end: socket.socket, *texts: str) -> bytes:
    end.sendall(message(pack_texts(texts)))
    [size] = LENGTH.unpack(end.recv(LENGTH.size, socket.MSG_WAITALL))
    return end.recv(size, socket.MSG_WAITALL)


@pytest.mark.parametrize(("text", "kind"), [("poison", b"ValueError"), ("panics", b"SystemExit")])
def test_failed_text__is_answered_with_the_error_class_only(end: socket.socket, text: str, kind: bytes) -> None:
    assert ask(end, "good", text) == FAILED + kind
    assert ask(end, "good")[:1] == READY


@given(TEXTS)
def test_packed_texts__round_trip(texts: list[str]) -> None:
    assert unpack_texts(pack_texts(texts)) == texts


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.builds(Row, st.tuples(*[SCORES] * width), st.integers(0, (1 << 32) - 1), st.booleans()), max_size=20
        )
    )
)
def test_packed_rows__round_trip(rows: list[Row]) -> None:
    assert unpack_rows(pack_rows(rows)) == rows
