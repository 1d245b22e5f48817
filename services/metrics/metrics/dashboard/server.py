"""GET /dashboard and its files, with a strict content security policy and long caching."""

from typing import Final

from aiohttp import hdrs, web

from common.http.problems import Problem
from metrics.dashboard.assets import Asset, Assets

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
}
_REVALIDATED: Final = "no-cache"
_NOT_KEPT: Final = "no-store"  # otherwise some caches keep even a 404 for minutes
_FOR_EVER: Final = "public, max-age=31536000, immutable"


def add_dashboard(app: web.Application, assets: Assets) -> None:
    """Serve the page at `/dashboard` and its files below it, under a path with their version.

    While replicas of two versions run, a page may request its files from the other version. It gets that version's
    file, without caching, so that the next load has a complete set.
    """

    async def page(request: web.Request) -> web.Response:
        return _answer(request, assets.page, _REVALIDATED)

    async def file(request: web.Request) -> web.Response:
        version, name = request.match_info["version"], request.match_info["name"]
        asset = assets.files.get(name)
        if asset is None:
            detail = "No such file in this version of the dashboard; load the page again."
            raise Problem(404, detail, headers={hdrs.CACHE_CONTROL: _NOT_KEPT})
        return _answer(request, asset, _FOR_EVER if version == assets.version else _REVALIDATED)

    async def without_slash(_request: web.Request) -> web.Response:
        raise web.HTTPPermanentRedirect("/dashboard")

    app.router.add_get("/dashboard", page)
    app.router.add_get("/dashboard/", without_slash)
    app.router.add_get("/dashboard/{version}/{name}", file)


def _answer(request: web.Request, asset: Asset, caching: str) -> web.Response:
    headers = {**_HEADERS, hdrs.ETAG: asset.etag, hdrs.CACHE_CONTROL: caching}
    if asset.etag in [tag.strip() for tag in request.headers.get(hdrs.IF_NONE_MATCH, "").split(",")]:
        return web.Response(status=304, headers=headers)
    zipped = _takes_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, ""))
    if zipped:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    body = asset.gzipped if zipped else asset.body
    return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Whether Accept-Encoding allows gzip: it is listed and its weight is not zero."""
    for part in accepted.lower().split(","):
        coding, _, weight = (piece.strip() for piece in part.partition(";"))
        if coding == "gzip":
            return weight.removeprefix("q=").strip("0.") != "" if weight.startswith("q=") else True
    return False
