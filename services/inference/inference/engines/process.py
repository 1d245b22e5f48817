"""The scoring process, `python -m inference.engines.process FD FOLDER REVISION GRAPH`, and its messages.

It serves one connection and exits when that ends, so it cannot outlive the service. A message is its length in four
bytes and its content: texts in one direction; in the other, the answer or the class of an error.
"""

import os
import signal
import socket
import struct
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from inference.engines.base import Answer, Engine, ModelError, Row, answer
from inference.models import bundle, hub

READY: Final = b"\x00"
FAILED: Final = b"\x01"  # with the words of the error behind it
LENGTH: Final = struct.Struct("<I")
_FOUND: Final = struct.Struct("<dI")
_NICENESS: Final = 5


def main(argv: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the service, which first answers what it took
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(_NICENESS)  # the event loop goes first: what it has to do takes microseconds, this computes for longer
    with socket.socket(fileno=int(argv[0])) as end, end.makefile("rb") as said, suppress(ConnectionError):
        try:
            engine, note = _engine(Path(argv[1]), *argv[2:])
        except ModelError as error:
            end.sendall(message(FAILED + str(error).encode()))
            return
        end.sendall(message(READY + note.encode()))
        serve(engine, said, end)


def serve(engine: Engine, said: BinaryIO, end: socket.socket) -> None:
    """Score what comes until the other end is gone."""
    while len(length := said.read(LENGTH.size)) == LENGTH.size:
        texts = unpack_texts(said.read(*LENGTH.unpack(length)))
        try:
            found = READY + pack_answer(answer(engine, texts))
        except BaseException as error:  # a panic of the tokenizer is no Exception, and is the fault of a text
            found = FAILED + type(error).__name__.encode()
        end.sendall(message(found))


def message(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def pack_texts(texts: Sequence[str]) -> bytes:
    """Raises UnicodeEncodeError for a text with a lone surrogate."""
    data = [text.encode() for text in texts]
    return array("I", [len(data), *map(len, data)]).tobytes() + b"".join(data)


def unpack_texts(data: bytes) -> list[str]:
    [count] = LENGTH.unpack_from(data)
    at = LENGTH.size * (1 + count)
    texts = []
    for size in array("I", data[LENGTH.size : at]):
        texts.append(data[at : at + size].decode())
        at += size
    return texts


def pack_answer(found: Answer) -> bytes:
    """All rows have one length."""
    tokens = array("I", [row.tokens for row in found.rows])
    flags = bytes(row.truncated for row in found.rows)
    scores = array("d", [value for row in found.rows for value in row.scores])
    return _FOUND.pack(found.tokenize_s, len(found.rows)) + tokens.tobytes() + flags + scores.tobytes()


def unpack_answer(data: bytes) -> Answer:
    tokenize_s, count = _FOUND.unpack_from(data)
    flags_at = _FOUND.size + LENGTH.size * count
    tokens = array("I", data[_FOUND.size : flags_at])
    values = array("d", data[flags_at + count :])
    width = len(values) // count if count else 0
    scores = (tuple(values[start : start + width]) for start in range(0, len(values), width or 1))
    flags = map(bool, data[flags_at : flags_at + count])
    return Answer([Row(*row) for row in zip(scores, tokens, flags, strict=True)], tokenize_s)


def _engine(folder: Path, revision: str, onnx_file: str = "") -> tuple[Engine, str]:
    """Return the engine, and what the log should say about it."""
    from inference.engines.onnx import OnnxEngine  # imported lazily: the service must not load onnxruntime

    loaded = hub.open_folder(folder, onnx_file)
    if loaded.card.revision != revision:
        raise ModelError(f"the model in {folder} was replaced since it was read: only a new process may serve it")
    engine = OnnxEngine(loaded)
    if loaded.reference:
        bundle.self_check(engine, loaded.reference)
        return engine, ""
    is_separate = engine.separate_texts_if_needed()
    return engine, "its scores depend on neighbouring texts: each is scored alone" if is_separate else ""


if __name__ == "__main__":
    main(sys.argv[1:])
