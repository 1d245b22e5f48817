"""The API pages: Swagger UI from an installed package, so they work offline, without external or inline scripts."""

import asyncio
import functools
from importlib.resources import files
from typing import Final

from aiohttp import web

from edge_limiter.proxy.handler import LocalHandler
from edge_limiter.server.request import Request

_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sluice API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = b"""window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // by default, a public server validates the document
});
"""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
_DOCUMENT: Final = (files(__package__) / "openapi.json").read_bytes()
"""Of the whole system; `make openapi` writes it."""
_FILES: Final = {
    "/docs/swagger.css": ("swagger_style.css", "text/css"),
    "/docs/bundle.js": ("swagger_bundle.js", "text/javascript"),
}


def docs_handlers() -> dict[str, LocalHandler]:
    """Return the handlers of `/openapi.json`, `/docs` and the files that it loads."""
    files = {path: _packaged(name, content_type) for path, (name, content_type) in _FILES.items()}
    pages = {"/docs": _constant(_PAGE, "text/html"), "/docs/start.js": _constant(_START, "text/javascript")}
    return pages | files | {"/openapi.json": _constant(_DOCUMENT, "application/json")}


def _constant(body: bytes, content_type: str) -> LocalHandler:
    async def page(_request: Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)

    return page


def _packaged(name: str, content_type: str) -> LocalHandler:
    async def file(_request: Request) -> web.Response:
        body = await asyncio.to_thread(_read, name)
        headers = {**_HEADERS, "Cache-Control": "public, max-age=86400"}
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return file


@functools.cache
def _read(name: str) -> bytes:
    return (files("offapi") / name).read_bytes()
