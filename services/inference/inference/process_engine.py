"""Owns the onnx engine in a process of its own, so that scoring does not share Python's lock with the event loop.

Texts are tokenised here and scored there. A process that dies fails the batch as an engine that broke does; so does
one that hangs, which is killed.
"""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final

from inference.bundle import Bundle
from inference.engine import Encoded, ModelError
from inference.scoring_process import FAILED, pack_texts, unpack_rows
from inference.tokens import encoded_by, tokenizer_for

_END_S: Final = 5.0
_PATIENCE_S: Final = 60.0  # a batch takes milliseconds


class ScoringProcessFailed(Exception):
    """The process answered with an error, or hangs, or is gone; the message holds the kind of its error."""


class ProcessEngine:
    """Each has a process, which ends with it."""

    def __init__(self, loaded: Bundle, patience_s: float = _PATIENCE_S) -> None:
        """Raises ModelError when the folder can't be served."""
        self.card = loaded.card
        self._tokenizer = tokenizer_for(loaded.tokenizer, loaded.card.max_tokens)
        self._connection, theirs = Pipe()
        with theirs:
            program = [sys.executable, "-m", "inference.scoring_process"]
            argv = [*program, str(theirs.fileno()), str(loaded.folder), loaded.card.revision]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        try:
            self._receive()  # to load a model may take any time
        except ScoringProcessFailed as error:
            self.close()
            raise ModelError(str(error)) from error
        _limit(self._connection, patience_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return encoded_by(self._tokenizer, texts)

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        """Raises ScoringProcessFailed."""
        try:
            self._connection.send_bytes(pack_texts(batch))
        except OSError as error:
            raise self._lost(error) from error
        return unpack_rows(self._receive())

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> bytes:
        try:
            answer = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._lost(error) from error
        if answer[:1] == FAILED:
            raise ScoringProcessFailed(answer[1:].decode())
        return answer[1:]

    def _lost(self, error: Exception) -> ScoringProcessFailed:
        if not isinstance(error, BlockingIOError):
            return ScoringProcessFailed("the scoring process is gone")
        self._process.kill()
        return ScoringProcessFailed("the scoring process hangs")


def _limit(connection: Connection, seconds: float) -> None:
    """From now on what blocks for longer raises BlockingIOError. The kernel's own clock costs a batch nothing."""
    whole, fraction = divmod(seconds, 1)
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(whole), int(fraction * 1e6)))
