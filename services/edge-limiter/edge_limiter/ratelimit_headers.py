"""How a limit is told to the client: draft-ietf-httpapi-ratelimit-headers, the legacy headers, and the 429 body."""

import functools
from typing import Final, NamedTuple

from edge_limiter.ratelimit.policy import Decision, Policy

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

_HEAD: Final = f'{{"type":"{QUOTA_EXCEEDED}","title":"Quota exceeded","status":429,'

Headers = tuple[tuple[str, str], ...]


def whole_seconds(seconds: float) -> int:
    """Rounded up: a client that waits so long is never early; never negative."""
    return max(0, -int(-seconds // 1))


def rate_limit(policy: Policy, decision: Decision) -> Headers:
    """What every answer of a limited route carries."""
    return _told(policy.name, policy.limit, policy.window_s, decision.remaining, whole_seconds(decision.reset_s))


class Refusal(NamedTuple):
    """The 429 but for what differs from one to the next, date and request id. `lines` are whole header lines."""

    lines: str
    before_id: str
    after_id: str

    def body(self, request_id: str) -> bytes:
        """The problem document. Ids and policy names are checked where they come in: JSON would escape nothing."""
        return f"{self.before_id}{request_id}{self.after_id}".encode()


def refusal(policy: Policy, decision: Decision, *, is_oip: bool = False) -> Refusal:
    """Built from text, and once for all who wait as long: a flood must not pay for a model. With `is_oip` it has
    `error`, too.
    """
    reset_s = whole_seconds(decision.reset_s)
    return _refusal(policy.name, policy.limit, policy.window_s, decision.remaining, reset_s, is_oip)


@functools.lru_cache(1024)
def _refusal(name: str, limit: int, window_s: int, remaining: int, reset_s: int, is_oip: bool) -> Refusal:
    wait_s = max(1, reset_s)  # zero would invite an immediate repeat
    detail = f"At most {limit} in any {window_s} s. Try again in {wait_s} s."
    error = f',"error":"{detail}"' if is_oip else ""
    headers = (("Retry-After", str(wait_s)), *_told(name, limit, window_s, remaining, reset_s))
    return Refusal(
        "".join([f"{header}: {value}\r\n" for header, value in headers]),
        f'{_HEAD}"detail":"{detail}","request_id":"',
        f'","errors":[],"violated-policies":["{name}"]{error}}}',
    )


def _told(name: str, limit: int, window_s: int, remaining: int, reset_s: int) -> Headers:
    return (
        ("RateLimit-Policy", f'"{name}";q={limit};w={window_s}'),
        ("RateLimit", f'"{name}";r={remaining};t={reset_s}'),
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(remaining)),
        ("X-RateLimit-Reset", str(reset_s)),
    )
