"""The API pages: Swagger UI from an installed package, so they work offline, without external or inline scripts."""

from importlib.resources import files
from typing import Final

from aiohttp import web

from edge_limiter.proxy.handler import LocalHandler
from edge_limiter.server.request import Request

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
_CACHED: Final = {"Cache-Control": "public, max-age=86400"}
_HERE: Final = files(__package__)
_SWAGGER: Final = files("offapi")


def docs_handlers() -> dict[str, LocalHandler]:
    """Return the handlers of `/openapi.json`, which `make openapi` writes, and of `/docs` with its files."""
    return {
        "/openapi.json": _file((_HERE / "openapi.json").read_bytes(), "application/json", {}),
        "/docs": _file((_HERE / "docs.html").read_bytes(), "text/html", {}),
        "/docs/start.js": _file((_HERE / "docs.js").read_bytes(), "text/javascript", {}),
        "/docs/swagger.css": _file((_SWAGGER / "swagger_style.css").read_bytes(), "text/css", _CACHED),
        "/docs/bundle.js": _file((_SWAGGER / "swagger_bundle.js").read_bytes(), "text/javascript", _CACHED),
    }


def _file(body: bytes, content_type: str, headers: dict[str, str]) -> LocalHandler:
    async def read(_request: Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS | headers)

    return read
