"""Refuse what the head alone shows to be wrong, before the client is charged for it."""

from collections.abc import Mapping
from typing import Final

from common.http.problems import Problem, check_content_encoding
from edge_limiter.relay import refuse_length
from edge_limiter.request import Request
from edge_limiter.routing import Route

_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_FORMS: Final = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""Content types that a browser sends to another site without asking that site first, as does none at all."""
_MAYBE_JSON: Final = frozenset({"application/json", "application/octet-stream", ""})
"""The service decides about the last two: they only say that the client names no type."""
_BROWSER: Final = frozenset({"origin", "sec-fetch-site"})


def check_before_charge(request: Request, route: Route, max_body_bytes: int) -> None:
    """Raise Problem 413 or 415.

    Otherwise any web page could spend its visitors' limit with a form, whose answer it need not read.
    """
    check_content_encoding(request.fields.get("content-encoding"))
    refuse_length(request, max_body_bytes)
    if request.method in _WRITES and route.policy is not None and not _is_acceptable(request.fields, route):
        raise Problem(415, "Send application/json.")


def _is_acceptable(fields: Mapping[str, str], route: Route) -> bool:
    """Only the Open Inference Protocol has other types; its clients may send any, unless they are web pages."""
    media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in _FORMS and not _BROWSER.isdisjoint(fields):
        return False
    return route.is_oip or media_type in _MAYBE_JSON
