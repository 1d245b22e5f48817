"""Messages of the scoring process, with the scripted engine at the other end of a socket."""

import marshal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inference.engines.base import Row
from inference.engines.process import FAILED, LENGTH, READY, message, pack_rows, serve, unpack_rows


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
    end.sendall(message(marshal.dumps(texts)))
    [size] = LENGTH.unpack(end.recv(LENGTH.size, socket.MSG_WAITALL))
    return end.recv(size, socket.MSG_WAITALL)


@pytest.mark.parametrize(("text", "kind"), [("poison", b"ValueError"), ("panics", b"SystemExit")])
def test_failed_text__is_answered_with_the_error_class_only(end: socket.socket, text: str, kind: bytes) -> None:
    assert ask(end, "good", text) == FAILED + kind
    assert ask(end, "good")[:1] == READY


def test_packed_rows__round_trip() -> None:
    rows = [Row((0.1, 0.9), 7, True), Row((1.0, 5e-324), 1 << 31)]
    assert unpack_rows(pack_rows(rows)) == rows
    assert all(isinstance(row, Row) for row in unpack_rows(pack_rows(rows)))
