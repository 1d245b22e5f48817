"""Refuses what the head alone shows to be wrong, before the client is charged for it."""

from collections.abc import Mapping
from typing import Final

from common.http.problems import Problem, check_content_encoding
from edge_limiter.proxy.responses import too_large
from edge_limiter.proxy.routing import Route
from edge_limiter.server.request import Request

_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_FORMS: Final = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""Content types that a browser sends to another site without a preflight request, as it does without any."""
_MAYBE_JSON: Final = frozenset({"application/json", "application/octet-stream", ""})
"""With the last two the client names no type, so the service decides."""
_BROWSER: Final = frozenset({"origin", "sec-fetch-site"})


def check_before_charge(request: Request, route: Route, max_body_bytes: int) -> None:
    """Raise Problem 413 or 415.

    Otherwise any web page could spend its visitors' limit by submitting a form and ignoring the response.
    """
    fields = request.fields
    if "content-encoding" in fields:
        check_content_encoding(fields["content-encoding"])
    if request.length is not None and request.length > max_body_bytes:
        raise too_large()
    if fields.get("content-type") == "application/json":
        return
    if request.method in _WRITES and route.policy is not None and not _is_acceptable(fields, route):
        raise Problem(415, "Send application/json.")


def _is_acceptable(fields: Mapping[str, str], route: Route) -> bool:
    """Only the Open Inference Protocol has other types; its clients may send any, unless they are web pages."""
    media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in _FORMS and not _BROWSER.isdisjoint(fields):
        return False
    return route.is_oip or media_type in _MAYBE_JSON
