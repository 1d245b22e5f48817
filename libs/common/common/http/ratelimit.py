"""Rate-limit response headers and the 429 problem, for every limit of every service.

The headers are those of draft-ietf-httpapi-ratelimit-headers, and X-RateLimit-* for older clients.
"""

import math
from functools import lru_cache
from typing import Any, Final, NamedTuple

from common.http.problems import Problem, retry_after

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

RATE_LIMIT_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "RateLimit-Policy": {
        "description": "The limit that applies to this request: `q` units in any `w` seconds.",
        "schema": {"type": "string"},
        "example": '"predict";q=60;w=60',
    },
    "RateLimit": {
        "description": "Units left (`r`) and seconds until the next becomes available (`t`).",
        "schema": {"type": "string"},
        "example": '"predict";r=59;t=60',
    },
    "X-RateLimit-Limit": {
        "description": "`q` of RateLimit-Policy, for older clients.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 60,
    },
    "X-RateLimit-Remaining": {
        "description": "`r` of RateLimit.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 59,
    },
    "X-RateLimit-Reset": {
        "description": "`t` of RateLimit: seconds from now, not a time of day.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 60,
    },
}
"""The OpenAPI description of each header."""

Headers = tuple[tuple[str, str], ...]


class Limit(NamedTuple):
    """A policy of `limit` units in any `window_s` seconds, and what is left of it.

    `reset_s` is the time until the next unit becomes available, rounded up so that no client returns too early, or
    None if it is unknown.
    """

    policy: str
    limit: int
    window_s: int
    remaining: int
    reset_s: int | None


class QuotaExceeded(NamedTuple):
    """A rendered 429 without its date and request id. Each line of `header_lines` ends with CRLF."""

    header_lines: str
    before_id: str
    after_id: str

    def body(self, request_id: str) -> bytes:
        """Return the problem document. A request id holds nothing that JSON escapes."""
        return f"{self.before_id}{request_id}{self.after_id}".encode()


def whole_seconds(seconds: float) -> int:
    """Round up; never negative."""
    return max(0, math.ceil(seconds))


def rate_limit_headers(limit: Limit) -> Headers:
    """Return the headers for every response of a limited route."""
    policy, quota, window_s, remaining, reset_s = limit
    reset = "" if reset_s is None else f";t={reset_s}"
    headers = (
        ("RateLimit-Policy", f'"{policy}";q={quota};w={window_s}'),
        ("RateLimit", f'"{policy}";r={remaining}{reset}'),
        ("X-RateLimit-Limit", str(quota)),
        ("X-RateLimit-Remaining", str(remaining)),
    )
    return headers if reset_s is None else (*headers, ("X-RateLimit-Reset", str(reset_s)))


def too_many_requests(limit: Limit, detail: str) -> Problem:
    """Return the 429 as a Problem to raise, with the headers of `limit`."""
    return _exceeded(limit.policy, detail, {**retry_after(limit.reset_s or 0), **dict(rate_limit_headers(limit))})


def too_many_at_once(policy: str, detail: str, retry_after_s: float) -> Problem:
    """Return the 429 of a limit on concurrent requests, which has no window."""
    return _exceeded(policy, detail, retry_after(retry_after_s))


def _exceeded(policy: str, detail: str, headers: dict[str, str]) -> Problem:
    extra = {"violated-policies": [policy]}
    return Problem(429, detail, type=QUOTA_EXCEEDED, title="Quota exceeded", headers=headers, extra=extra)


@lru_cache(1024)
def quota_exceeded(limit: Limit, *, is_oip: bool = False) -> QuotaExceeded:
    """Return the 429 problem, rendered once for all clients with equal limits, so that a flood is cheap.

    `is_oip` adds the member `error` of the Open Inference Protocol.
    """
    retry_s = max(1, limit.reset_s or 0)  # zero would invite an immediate repeat
    detail = f"At most {limit.limit} in any {limit.window_s} s. Try again in {retry_s} s."
    error = f',"error":"{detail}"' if is_oip else ""
    headers = (("Retry-After", str(retry_s)), *rate_limit_headers(limit))
    return QuotaExceeded(
        "".join([f"{name}: {value}\r\n" for name, value in headers]),
        f'{{"type":"{QUOTA_EXCEEDED}","title":"Quota exceeded","status":429,"detail":"{detail}","request_id":"',
        f'","errors":[],"violated-policies":["{limit.policy}"]{error}}}',
    )
