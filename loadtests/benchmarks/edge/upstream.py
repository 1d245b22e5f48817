"""The upstream of every proxy: answers each request with the same small JSON at minimal cost. `upstream.py PORT`."""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY = b'{"label":"POSITIVE","score":0.998,"model":"bundled","request_id":"0197"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name == b"Expect":
            self.transport.write(CONTINUE)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
