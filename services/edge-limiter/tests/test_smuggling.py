# ruff: noqa: E501  # one case, one line
"""Raw bytes against the real door, with a recording server behind it: nothing crooked arrives, nothing hangs.

The cases come from RFC 9110 and 9112 and from the known classes of request smuggling (CL.TE, TE.CL, TE.TE, bare
line ends, folded lines, chunk games, names and targets that two parsers read differently).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]

GET = b"GET /models HTTP/1.1\r\nHost: edge\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: edge\r\n"
NEXT = b"GET /models/smuggled HTTP/1.1\r\nHost: edge\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@dataclass
class Recorder:
    """A server that trusts what it reads, and keeps it: `begun` has each head, `requests` what came whole."""

    begun: list[bytes] = field(default_factory=list)
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                assert error.partial == b"", error.partial
                return
            self.begun.append(head)
            if b"\r\nexpect: 100-continue\r\n" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.requests.append((head, await self._body(reader, head)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        assert not {b"content-length", b"transfer-encoding"} <= fields.keys()
        if b"transfer-encoding" in fields:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                assert await reader.readexactly(2) == b"\r\n"
            assert await reader.readexactly(2) == b"\r\n"
            return body
        return await reader.readexactly(int(fields.get(b"content-length", 0)))


REFUSED: list[tuple[str, int, bytes]] = [
    # a length and an encoding, or two of one
    ("CL.TE", 400, POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\nG"),
    ("TE.CL", 400, POST + CHUNKED + b"Content-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n"),
    ("CL.0 with TE", 400, POST + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    ("two equal lengths", 400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("two lengths", 400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    ("list of lengths", 400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    ("signed length", 400, POST + b"Content-Length: +3\r\n\r\nabc"),
    ("negative length", 400, POST + b"Content-Length: -3\r\n\r\nabc"),
    ("hexadecimal length", 400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    ("octal-like exponent length", 400, POST + b"Content-Length: 3e0\r\n\r\nabc"),
    ("underscored length", 400, POST + b"Content-Length: 1_0\r\n\r\nabcdefghij"),
    ("float length", 400, POST + b"Content-Length: 3.0\r\n\r\nabc"),
    ("empty length", 400, POST + b"Content-Length:\r\n\r\nabc"),
    ("overflowing length", 400, POST + b"Content-Length: 18446744073709551616\r\n\r\nabc"),
    ("wrapping length", 400, POST + b"Content-Length: 18446744073709551619\r\n\r\nabc"),
    ("spaced length", 400, POST + b"Content-Length: 3 3\r\n\r\nabc"),
    ("vertical tab in length", 400, POST + b"Content-Length: \x0b3\r\n\r\nabc"),
    ("length too large", 413, POST + b"Content-Length: 99999999\r\n\r\nabc"),
    # encodings that are not exactly chunked
    ("identity", 501, POST + b"Transfer-Encoding: identity\r\n\r\nabc"),
    ("xchunked", 501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice", 400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked on two lines", 400, POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n"),
    ("chunked, identity", 400, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("identity, chunked", 501, POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("gzip, chunked", 501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("quoted", 501, POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("with a parameter", 501, POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    ("leading vertical tab", 400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("form feed", 400, POST + b"Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n"),
    ("NUL after it", 400, POST + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n"),
    ("high byte before it", 501, POST + b"Transfer-Encoding: \xffchunked\r\n\r\n0\r\n\r\n"),
    ("empty", 400, POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("comma first", 501, POST + b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"),
    ("space before the colon", 400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("tab before the colon", 400, POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("name on a folded line", 400, POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("value on a folded line", 400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("hidden behind a bare CR", 400, POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("hidden behind a bare LF", 400, POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE in HTTP/1.0", 400, b"POST /predict HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    ("underscored encoding", 400, POST + b"Transfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
    ("underscored length name", 400, POST + b"Content_Length: 3\r\n\r\n"),
    # chunks
    ("chunk size with 0x", 400, POST + CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    ("chunk size with a sign", 400, POST + CHUNKED + b"\r\n+3\r\nabc\r\n0\r\n\r\n"),
    ("negative chunk size", 400, POST + CHUNKED + b"\r\n-3\r\nabc\r\n0\r\n\r\n"),
    ("chunk size with underscore", 400, POST + CHUNKED + b"\r\n1_0\r\nabc\r\n0\r\n\r\n"),
    ("overflowing chunk size", 400, POST + CHUNKED + b"\r\n10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("empty chunk size", 400, POST + CHUNKED + b"\r\n\r\nabc\r\n0\r\n\r\n"),
    ("space before the chunk size", 400, POST + CHUNKED + b"\r\n 3\r\nabc\r\n0\r\n\r\n"),
    ("space after the chunk size", 400, POST + CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n"),
    ("bare LF after the chunk size", 400, POST + CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n"),
    ("bare CR after the chunk size", 400, POST + CHUNKED + b"\r\n3\rabc\r\n0\r\n\r\n"),
    ("bare LF after an extension", 400, POST + CHUNKED + b"\r\n3;a\nabc\r\n0\r\n\r\n"),
    ("NUL in an extension", 400, POST + CHUNKED + b"\r\n3;\x00\r\nabc\r\n0\r\n\r\n"),
    ("chunk longer than told", 400, POST + CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n"),
    ("chunk ended by LF", 400, POST + CHUNKED + b"\r\n3\r\nabc\n0\r\n\r\n"),
    ("two bytes instead of CRLF", 400, POST + CHUNKED + b"\r\n3\r\nabcXX0\r\n\r\n"),
    ("last chunk ended by LF", 400, POST + CHUNKED + b"\r\n3\r\nabc\r\n0\n\n"),
    ("malformed trailer", 400, POST + CHUNKED + b"\r\n0\r\nX Y: 1\r\n\r\n"),
    ("folded trailer", 400, POST + CHUNKED + b"\r\n0\r\nX: 1\r\n 2\r\n\r\n"),
    ("endless extension", 400, POST + CHUNKED + b"\r\n3;" + b"a" * 200_000),
    ("endless trailers", 400, POST + CHUNKED + b"\r\n0\r\n" + b"X: 1\r\n" * 40_000),
    # line ends
    ("LF only", 400, b"GET /models HTTP/1.1\nHost: edge\n\n"),
    ("LF after the request line", 400, b"GET /models HTTP/1.1\nHost: edge\r\n\r\n"),
    ("LF after a field", 400, b"GET /models HTTP/1.1\r\nHost: edge\n\r\n"),
    ("LF instead of the empty line", 400, GET + b"X: y\r\n\n"),
    ("CR only", 400, b"GET /models HTTP/1.1\rHost: edge\r\r"),
    ("CR CR LF", 400, b"GET /models HTTP/1.1\r\r\nHost: edge\r\n\r\n"),
    # names and values
    ("folded value", 400, GET + b"X: a\r\n b\r\n\r\n"),
    ("folded with a tab", 400, GET + b"X: a\r\n\tb\r\n\r\n"),
    ("space before the first field", 400, b"GET /models HTTP/1.1\r\n Host: edge\r\n\r\n"),
    ("no colon", 400, GET + b"X\r\n\r\n"),
    ("empty name", 400, GET + b": x\r\n\r\n"),
    ("space in a name", 400, GET + b"X Y: 1\r\n\r\n"),
    ("NUL in a name", 400, GET + b"X\x00Y: 1\r\n\r\n"),
    ("high byte in a name", 400, GET + b"X\xe9: 1\r\n\r\n"),
    ("parenthesis in a name", 400, GET + b"X(Y): 1\r\n\r\n"),
    ("NUL in a value", 400, GET + b"X: a\x00b\r\n\r\n"),
    ("control byte in a value", 400, GET + b"X: a\x01b\r\n\r\n"),
    ("CR in a value", 400, GET + b"X: a\rb\r\n\r\n"),
    ("escape in a value", 400, GET + b"X: \x1b[31m\r\n\r\n"),
    ("underscored client address", 400, GET + b"X_Forwarded_For: 1.1.1.1\r\n\r\n"),
    ("half underscored client address", 400, GET + b"X-Forwarded_For: 1.1.1.1\r\n\r\n"),
    ("underscored host", 400, GET + b"x_forwarded_host: evil\r\n\r\n"),
    ("two authorizations", 400, GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"),
    ("two content types", 400, POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n\r\n"),
    # hosts
    ("no host", 400, b"GET /models HTTP/1.1\r\n\r\n"),
    ("two hosts", 400, GET + b"Host: other\r\n\r\n"),
    ("two equal hosts", 400, GET + b"Host: edge\r\n\r\n"),
    ("empty host", 400, b"GET /models HTTP/1.1\r\nHost:\r\n\r\n"),
    ("host with a space", 400, b"GET /models HTTP/1.1\r\nHost: edge evil\r\n\r\n"),
    ("host with a user", 400, b"GET /models HTTP/1.1\r\nHost: edge@evil\r\n\r\n"),
    ("host with a path", 400, b"GET /models HTTP/1.1\r\nHost: edge/evil\r\n\r\n"),
    ("host list", 400, b"GET /models HTTP/1.1\r\nHost: edge, evil\r\n\r\n"),
    ("host with a bad port", 400, b"GET /models HTTP/1.1\r\nHost: edge:evil\r\n\r\n"),
    # targets
    ("absolute form", 400, b"GET http://evil/models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("https absolute form", 400, b"GET https://evil/models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("authority form", 501, b"CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n"),
    ("asterisk form", 400, b"OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("network path", 400, b"GET //evil/models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("network path with a user", 400, b"GET //@evil/models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("empty segment", 400, b"GET /models//x HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("dot segment", 400, b"GET /metrics/../predict HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("single dot", 400, b"GET /./models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded dot segment", 400, b"GET /metrics/%2e%2e/predict HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded slash", 400, b"POST /predict%2fbatch HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n"),
    ("encoded backslash", 400, b"GET /models%5cx HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("backslash", 400, b"GET /models\\x HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded NUL", 400, b"GET /models%00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded CRLF", 400, b"GET /models%0d%0aX:1 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("double encoding", 400, b"GET /models%252fx HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded question mark", 400, b"GET /models%3fa HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("encoded fragment", 400, b"GET /models%23a HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("fragment", 400, b"GET /models#a HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("cut escape", 400, b"GET /models%2 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("escape of no digits", 400, b"GET /models%zz HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("high byte in the target", 400, b"GET /models\xff HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("NUL in the target", 400, b"GET /models\x00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("tab in the target", 400, b"GET /mod\tels HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("space in the target", 400, b"GET /mod els HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("two versions", 400, b"GET /models HTTP/1.1 HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("too long", 414, b"GET /models/" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: edge\r\n\r\n"),
    # request lines
    ("no version", 505, b"GET /models\r\nHost: edge\r\n\r\n"),
    ("HTTP/2.0", 505, b"GET /models HTTP/2.0\r\nHost: edge\r\n\r\n"),
    ("HTTP/1.2", 400, b"GET /models HTTP/1.2\r\nHost: edge\r\n\r\n"),
    ("HTTP/9.9", 400, b"GET /models HTTP/9.9\r\nHost: edge\r\n\r\n"),
    ("lower-case protocol", 400, b"GET /models http/1.1\r\nHost: edge\r\n\r\n"),
    ("other protocol", 400, b"GET /models HTP/1.1\r\nHost: edge\r\n\r\n"),
    ("HTTP/2 preface", 400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("TLS hello", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40),
    ("PROXY protocol", 400, b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GET + b"\r\n"),
    ("lower-case method", 400, b"get /models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("unknown method", 400, b"BREW /models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("TRACE", 501, b"TRACE /models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("method with a space", 400, b"G ET /models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("leading space", 400, b" GET /models HTTP/1.1\r\nHost: edge\r\n\r\n"),
    ("NUL first", 400, b"\x00" + GET + b"\r\n"),
    # upgrades and expectations
    ("WebSocket", 501, GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"),
    ("WebSocket before a body", 501, POST + H2C + b"Upgrade: websocket\r\nContent-Length: 3\r\n\r\nabc"),
    ("h2c, then a body that turns crooked", 400, POST + CHUNKED + H2C + b"\r\n3\r\nabcXX0\r\n\r\n"),
    ("h2c with a length and an encoding", 400, POST + H2C + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\nG"),
    ("h2c with two lengths", 400, POST + H2C + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    ("unknown expectation", 417, POST + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n"),
    # headers that the edge judges by, taken away from the service
    ("Connection names the JSON length", 400, POST + b"Connection: Inference-Header-Content-Length\r\nInference-Header-Content-Length: 1\r\nContent-Length: 0\r\n\r\n"),
    ("Connection names the coding", 400, POST + b"Connection: close, \xa0content-ENCODING\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"),
    ("two Connections name the key", 400, POST + b"Connection: keep-alive\r\nConnection: x-api-key\r\nX-API-Key: k\r\nContent-Length: 0\r\n\r\n"),
    # heads past their limits
    ("long field", 431, GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n"),
    ("long name", 431, GET + b"X" * 40_000 + b": 1\r\n\r\n"),
    ("many fields", 431, GET + b"X: 1\r\n" * 200 + b"\r\n"),
    ("field without end", 431, GET + b"X: " + b"a" * 1_000_000),
    ("name without end", 431, GET + b"X" * 1_000_000),
    ("fields without end", 431, GET + b"X: 1\r\n" * 200_000),
    ("target without end", 414, b"GET /" + b"a" * 1_000_000),
    ("trailer without end", 400, POST + CHUNKED + b"\r\n0\r\nX: " + b"a" * 1_000_000),
    ("trailer without end after a large body", 400, POST + CHUNKED + b"\r\n80000\r\n" + b"x" * 0x80000 + b"\r\n0\r\nX: " + b"a" * 1_000_000),
    ("chunk extension without end", 400, POST + CHUNKED + b"\r\n1;" + b"a" * 1_000_000),
]  # fmt: skip

TAKEN: list[tuple[str, bytes, list[tuple[bytes, bytes]]]] = [
    ("plain", GET + b"\r\n", [(b"GET /models", b"")]),
    ("empty lines first", b"\r\n\r\n" + GET + b"\r\n", [(b"GET /models", b"")]),
    ("chunks", POST + CHUNKED + b"\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", [(b"POST /predict", b"abcde")]),
    ("chunk extensions end here", POST + CHUNKED + b"\r\n3;a=b\r\nabc\r\n0\r\n\r\n", [(b"POST /predict", b"abc")]),
    ("trailers end here", POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX-Smuggled: 1\r\n\r\n", [(b"POST /predict", b"abc")]),
    ("encoding in capitals", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", [(b"POST /predict", b"a")]),
    ("leading zeros", POST + b"Content-Length: 003\r\n\r\nabc", [(b"POST /predict", b"abc")]),
    ("zeros before a chunk size", POST + CHUNKED + b"\r\n003\r\nabc\r\n0\r\n\r\n", [(b"POST /predict", b"abc")]),
    ("GET with a body", GET + b"Content-Length: 3\r\n\r\nabc", [(b"GET /models", b"abc")]),
    ("GET with chunks", GET + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n", [(b"GET /models", b"abc")]),
    ("body that looks like a request", POST + b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT), [(b"POST /predict", NEXT)]),
    ("two in one", GET + b"\r\n" + GET + b"\r\n", [(b"GET /models", b""), (b"GET /models", b"")]),
    ("POST, then GET", POST + b"Content-Length: 3\r\n\r\nabc" + GET + b"\r\n", [(b"POST /predict", b"abc"), (b"GET /models", b"")]),
    ("hop-by-hop header named", GET + b"Connection: X-Smuggled\r\nX-Smuggled: 1\r\n\r\n", [(b"GET /models", b"")]),
    ("Connection names Host", GET + b"Connection: Host\r\n\r\n", [(b"GET /models", b"")]),
    ("Connection names the length", POST + b"Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc", [(b"POST /predict", b"abc")]),
    ("h2c", GET + H2C + b"\r\n", [(b"GET /models", b"")]),
    ("h2c not named by Connection", GET + b"Upgrade: h2c\r\n\r\n", [(b"GET /models", b"")]),
    ("h2c, then GET", GET + H2C + b"\r\n" + GET + b"\r\n", [(b"GET /models", b""), (b"GET /models", b"")]),
    ("h2c twice, before bodies", (POST + H2C + b"Content-Length: 3\r\n\r\nabc") * 2, [(b"POST /predict", b"abc")] * 2),
    ("h2c before chunks, then GET", POST + CHUNKED + H2C + b"\r\n3\r\nabc\r\n0\r\nX-Smuggled: 1\r\n\r\n" + GET + b"\r\n", [(b"POST /predict", b"abc"), (b"GET /models", b"")]),
    ("h2c before an empty body, then GET", POST + H2C + b"Content-Length: 0\r\n\r\n" + GET + b"\r\n", [(b"POST /predict", b""), (b"GET /models", b"")]),
    ("h2c before a body that looks like a request", POST + H2C + b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT), [(b"POST /predict", NEXT)]),
    ("unreserved escapes", b"GET /%6dodels HTTP/1.1\r\nHost: edge\r\n\r\n", [(b"GET /models", b"")]),
]  # fmt: skip


async def talk(port: int, data: bytes, answers: int, pause: bool = False) -> list[int]:
    """The statuses of what comes back, until `answers` are there or the connection ends; `pause` after each byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses: list[int] = []
    try:
        for byte in data if pause else b"":
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        writer.write(b"" if pause else data)
        while len(statuses) < answers:
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(head[9:12]))
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(int(length.split(b":")[1]))
            if statuses[-1] >= 400:
                assert b"application/problem+json" in head
                assert b"evil" not in body and b"smuggled" not in body
                assert b"Connection: close" in head
                assert await reader.read() == b"", "something follows a refusal"
                break
    finally:
        writer.close()
    return statuses


async def start(start_edge: StartEdge, start_raw_upstream: StartUpstream) -> tuple[int, Recorder]:
    recorder = Recorder()
    origin = await start_raw_upstream(recorder.serve)
    everywhere = {f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")}
    edge = await start_edge(EDGE_RATE_LIMIT="1000", **everywhere)
    return edge.port, recorder


@pytest.mark.parametrize("part", range(4))
async def test_crooked_request__is_refused_and_reaches_nobody(
    start_edge: StartEdge, start_raw_upstream: StartUpstream, part: int
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    for name, status, data in REFUSED[part::4]:
        for sent in (data, data + NEXT):
            async with asyncio.timeout(5):
                assert (await talk(port, sent, 2))[0] == status, name
            assert recorder.requests == [], name
            # A body that turns crooked on its way is broken off: its upstream has a head, and never a whole request.
            is_chunked = data.removeprefix(POST + CHUNKED).removeprefix(H2C).startswith(b"\r\n")
            assert recorder.begun == [] or is_chunked, name
            recorder.begun.clear()


async def test_odd_but_sound_request__arrives_once_and_unambiguous(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    for name, data, expected in TAKEN:
        async with asyncio.timeout(5):
            assert await talk(port, data, len(expected)) == [200] * len(expected), name
        arrived = [(head.split(b" HTTP/1.1\r\n")[0], body) for head, body in recorder.requests]
        assert arrived == expected, name
        assert all(b"smuggled" not in head.lower() for head, _ in recorder.requests), name
        recorder.requests.clear()


async def test_request_that_comes_byte_by_byte__arrives_the_same(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    for name, data, expected in TAKEN:
        if len(data) < 300:
            async with asyncio.timeout(20):
                assert await talk(port, data, len(expected), pause=True) == [200] * len(expected), name
            assert [(head.split(b" HTTP/1.1\r\n")[0], body) for head, body in recorder.requests] == expected, name
            recorder.requests.clear()


async def test_offer_of_another_protocol__ends_here(start_edge: StartEdge, start_raw_upstream: StartUpstream) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    for head in (GET + H2C + b"\r\n", POST + H2C + b"Content-Length: 3\r\n\r\nabc", GET + b"Upgrade: h2c\r\n\r\n"):
        assert await talk(port, head, 1) == [200]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert await talk(port, GET + H2C + b"\r\n" + preface, 3) == [200, 400]
    assert all(b"h2c" not in head.lower() and b"http2" not in head.lower() for head, _ in recorder.requests)


async def test_sound_request_before_a_crooked_one__is_answered_first(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    for name, status, data in REFUSED:
        async with asyncio.timeout(5):
            assert await talk(port, GET + b"\r\n" + data, 3) == [200, status], name
        assert recorder.requests[0][0].startswith(b"GET /models HTTP/1.1\r\n"), name
        recorder.requests.clear()


async def test_request_cut_anywhere__is_never_completed(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    whole = POST + b"Content-Length: 10\r\n\r\n0123456789"
    for cut in range(1, len(whole)):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole[:cut])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert await talk(port, GET + b"\r\n", 1) == [200]
    assert [head[:11] for head, _ in recorder.requests] == [b"GET /models"]


async def test_many_requests_in_one_write__are_answered_in_order_up_to_a_bound(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    port, recorder = await start(start_edge, start_raw_upstream)
    data = b"".join(b"GET /models/%d HTTP/1.1\r\nHost: edge\r\n\r\n" % number for number in range(1_000))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 200") == len(recorder.requests) <= 64
    assert [int(head.split(b" ")[1][8:]) for head, _ in recorder.requests] == list(range(len(recorder.requests)))
