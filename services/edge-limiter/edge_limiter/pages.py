"""Hands requests for the edge's own pages, already found to be sound, to the aiohttp app that has them; GET only.

Their connection closes after the answer: pages are rare, and the data path stays free of them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from common.http.context import REQUEST_ID, RequestContext
from common.http.problems import Problem
from edge_limiter.connection import Connection
from edge_limiter.request import Request
from edge_limiter.routing import Target

_PAGES: Final = frozenset({"/", "/health", "/openapi.json", "/docs"})
_BELOW: Final = "/docs/"
_METHODS: Final = ("GET", "HEAD")
_KEPT: Final = frozenset({"accept", "if-modified-since", "if-none-match", "user-agent"})


class Pages:
    """`server` makes the protocols that read requests for the pages; it is there once the app has started."""

    def __init__(self) -> None:
        self.server: Callable[[], asyncio.Protocol] | None = None

    def has(self, path: str) -> bool:
        return path in _PAGES or path.startswith(_BELOW)

    def take_over(self, request: Request, target: Target, ctx: RequestContext, connection: Connection) -> None:
        """Raises Problem 405 for anything but a plain GET or HEAD."""
        if request.method not in _METHODS or not request.body.is_complete:
            raise Problem(405, "This route does not take that method; see Allow.", headers={"Allow": "GET, HEAD"})
        assert self.server is not None
        lines = [f"{request.method} {target.path_and_query} HTTP/1.1", f"Host: {request.fields.get('host', '-')}"]
        lines += [f"{name}: {request.fields[name]}" for name in _KEPT if name in request.fields]
        lines += [f"{REQUEST_ID}: {ctx.request_id}", "Connection: close"]
        connection.hand_over(self.server(), "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
