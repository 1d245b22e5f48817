"""The scoring process, `python -m inference.engines.process FD FOLDER REVISION GRAPH`, and its messages.

It serves one connection and exits when that ends, so it cannot outlive the service. A message is its length in four
bytes and its content: texts in one direction; in the other, the rows or the class of an error. Both ends run the same
Python, so they exchange lists with `marshal`.
"""

import marshal
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from inference.engines.base import Engine, ModelError, Row, rows_of
from inference.models import bundle, hub

READY: Final = b"\x00"
FAILED: Final = b"\x01"  # followed by the error
LENGTH: Final = struct.Struct("<I")
_NICENESS: Final = 5


def main(argv: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # for the service, which first answers admitted requests
        signal.signal(number, signal.SIG_IGN)
    with (
        socket.socket(fileno=int(argv[0])) as connection,
        connection.makefile("rb") as stream,
        suppress(ConnectionError),
    ):
        try:
            engine, note = _engine(Path(argv[1]), *argv[2:])
        except ModelError as error:
            connection.sendall(message(FAILED + str(error).encode()))
            return
        with suppress(OSError):  # not earlier: a nice process would load its model slowly on a busy machine
            os.nice(_NICENESS)  # the event loop goes first: its work takes microseconds
        connection.sendall(message(READY + note.encode()))
        serve(engine, stream, connection)


def serve(engine: Engine, stream: BinaryIO, connection: socket.socket) -> None:
    """Answer requests until the connection ends."""
    while len(length := stream.read(LENGTH.size)) == LENGTH.size:
        texts = marshal.loads(stream.read(*LENGTH.unpack(length)))
        try:
            encoded = engine.encode(texts)
            response = READY + pack_rows(rows_of(engine.score(encoded), encoded))
        except BaseException as error:  # the tokenizer panics with a BaseException
            response = FAILED + type(error).__name__.encode()
        connection.sendall(message(response))


def message(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def pack_rows(rows: Sequence[Row]) -> bytes:
    return marshal.dumps([tuple(row) for row in rows])


def unpack_rows(data: bytes) -> list[Row]:
    return [Row(*row) for row in marshal.loads(data)]


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
