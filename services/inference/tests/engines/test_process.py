"""What a scoring process says and hears, with the scripted engine on the other end of a socket."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import Answer, Row
from inference.engines.process import (
    FAILED,
    LENGTH,
    READY,
    message,
    pack_answer,
    pack_texts,
    serve,
    unpack_answer,
    unpack_texts,
)

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))
SCORES = st.floats(allow_nan=False)


@pytest.fixture
def end(stage: Any) -> Iterator[socket.socket]:
    """Ours of a socket whose other end is served."""
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


def test_texts__are_read_and_scored(end: socket.socket, stage: Any) -> None:
    answer = ask(end, "good film", "bad")
    assert answer[:1] == READY
    read = [stage.encode(text) for text in ("good film", "bad")]
    assert unpack_answer(answer[1:]).rows == [Row(stage.scores(text), text.tokens) for text in read]


@pytest.mark.parametrize(("text", "kind"), [("poison", b"ValueError"), ("panics", b"SystemExit")])
def test_text_that_the_engine_fails_on__is_told_without_its_words_and_the_next_is_scored(
    end: socket.socket, text: str, kind: bytes
) -> None:
    assert ask(end, "good", text) == FAILED + kind
    assert ask(end, "good")[:1] == READY


@given(TEXTS)
def test_texts__arrive_as_they_were_sent(texts: list[str]) -> None:
    assert unpack_texts(pack_texts(texts)) == texts


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.builds(Row, st.tuples(*[SCORES] * width), st.integers(0, (1 << 32) - 1), st.booleans()), max_size=20
        )
    ),
    st.floats(0, 1e6),
)
def test_rows__arrive_as_they_were_sent(rows: list[Row], tokenize_s: float) -> None:
    assert unpack_answer(pack_answer(Answer(rows, tokenize_s))) == Answer(rows, tokenize_s)
