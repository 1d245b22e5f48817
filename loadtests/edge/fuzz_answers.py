"""Coverage-guided fuzzing of what reads an upstream's answer: any bytes, in any pieces, by atheris.

    PYTHONPATH=services/edge-limiter:libs/common .cache/peers/fuzz/bin/python loadtests/edge/fuzz_answers.py \\
        [FOLDER OF EXAMPLES] [-max_total_time=180]

Runs in the environment `fuzz` of `peers/install.py`. Stops with the bytes that broke a promise: the result is the same
in any pieces, every failure is one that callers expect, and only a whole answer leaves the connection to the next
request.
"""

import asyncio
import sys
from typing import cast

import atheris

with atheris.instrument_imports():
    from edge_limiter.upstream.connection import ConnectionClosed, UpstreamConnection
    from edge_limiter.upstream.errors import BadGateway

METHODS = ("GET", "HEAD", "POST")
LINES = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 101 S\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: ", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Upgrade: x\r\n", b"X: y\r\n", b"\r\n", b"\n", b"abc", b"3\r\nabc\r\n", b"3;a=b\r\n", b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
)  # fmt: skip
LOOP = asyncio.new_event_loop()

Result = tuple[int, bytes] | str


class FakeTransport:
    """Takes what is written, and remembers how it ended."""

    is_open = True

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return not self.is_open

    def abort(self) -> None:
        self.is_open = False


async def receive(pieces: list[bytes], method: str) -> tuple[Result, bool]:
    """What the caller gets when these pieces come and the connection ends; and whether it would be kept."""
    connection, transport = UpstreamConnection(1.0, 0.0), FakeTransport()
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    call = connection.send(method, b"", b"")
    for piece in pieces:
        if transport.is_open:
            connection.data_received(piece)
    is_kept = connection._is_complete and connection._keeps_alive and transport.is_open
    connection.connection_lost(None)
    try:
        answer = await call
        return (answer.status, await answer.read()), is_kept
    except (BadGateway, ConnectionClosed) as error:
        return type(error).__name__, is_kept


def check(data: bytes) -> None:
    """The data choose the method, where the answer is cut, and of which lines and loose bytes it is made."""
    source = atheris.FuzzedDataProvider(data)
    method = METHODS[source.ConsumeIntInRange(0, 2)]
    size = source.ConsumeIntInRange(1, 64)
    sent = b""
    while source.remaining_bytes():
        chosen = source.ConsumeIntInRange(0, 2 * len(LINES))
        sent += LINES[chosen % len(LINES)] if chosen < 2 * len(LINES) else source.ConsumeBytes(8)
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    whole, _ = LOOP.run_until_complete(receive([sent] if sent else [], method))
    found, is_kept = LOOP.run_until_complete(receive(pieces, method))
    if found != whole or (is_kept and not isinstance(found, tuple)):
        raise AssertionError(f"{method} {whole!r} at once, {found!r} in pieces of {size}, kept: {is_kept}")


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[1:]], check)
    atheris.Fuzz()
