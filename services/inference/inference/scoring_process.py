"""Owns a process that scores for another, `python -m inference.scoring_process FD FOLDER REVISION`, and how they talk.

It serves one connection and ends with it, so it can't outlive who started it, however that died.
"""

import os
import signal
import struct
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from inference import bundle
from inference.engine import Encoded, Engine, ModelChanged, ModelError

READY: Final = b"\x00"
FAILED: Final = b"\x01"  # with the words of the error behind it
_COUNT: Final = struct.Struct("<I")
_NICENESS: Final = 5


def main(argv: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the service, which first answers what it took
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(_NICENESS)  # the event loop goes first: what it has to do takes microseconds, this computes for longer
    with Connection(int(argv[0])) as connection, suppress(EOFError, ConnectionError):
        try:
            engine = _engine(Path(argv[1]), argv[2])
        except ModelError as error:
            connection.send_bytes(FAILED + str(error).encode())
            return
        connection.send_bytes(READY)
        serve(engine, connection)


def serve(engine: Engine, connection: Connection) -> None:
    """Score what comes until the other end is gone, which raises EOFError."""
    while True:
        batch = unpack_texts(connection.recv_bytes())
        try:
            answer = READY + pack_rows(engine.score(batch))
        except Exception as error:
            answer = FAILED + type(error).__name__.encode()
        connection.send_bytes(answer)


def pack_texts(texts: Sequence[Encoded]) -> bytes:
    numbers = array("i", [len(texts), *(text.tokens for text in texts)])
    for text in texts:
        numbers.extend(text.ids)
    return numbers.tobytes()


def unpack_texts(data: bytes) -> list[Encoded]:
    numbers = array("i", data)
    count = numbers[0]
    texts, at = [], 1 + count
    for tokens in numbers[1 : 1 + count]:
        texts.append(Encoded(tuple(numbers[at : at + tokens])))
        at += tokens
    return texts


def pack_rows(rows: Sequence[Sequence[float]]) -> bytes:
    """All rows have one length."""
    return _COUNT.pack(len(rows)) + array("d", [value for row in rows for value in row]).tobytes()


def unpack_rows(data: bytes) -> list[tuple[float, ...]]:
    [count] = _COUNT.unpack_from(data)
    values = array("d", data[_COUNT.size :])
    width = len(values) // count if count else 0
    return [tuple(values[start : start + width]) for start in range(0, len(values), width or 1)]


def _engine(folder: Path, revision: str) -> Engine:
    from inference.onnx_engine import OnnxEngine  # loads the runtime, which who only talks to this needs not

    loaded = bundle.load(folder)
    if loaded.card.revision != revision:
        raise ModelChanged(f"the model in {folder} was replaced since it was read: only a new process may serve it")
    engine = OnnxEngine(loaded.model, loaded.tokenizer, loaded.card)
    bundle.self_check(engine, loaded.reference)
    return engine


if __name__ == "__main__":
    main(sys.argv[1:])
