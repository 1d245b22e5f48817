"""How a limit is told to the client: draft-ietf-httpapi-ratelimit-headers, the legacy headers, and the 429 body."""

import functools
from typing import Final

from edge_limiter.limiter import Decision
from edge_limiter.policy import Policy

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

_HEAD: Final = f'{{"type":"{QUOTA_EXCEEDED}","title":"Quota exceeded","status":429,'

Headers = tuple[tuple[str, str], ...]


def whole_seconds(seconds: float) -> int:
    """Rounded up: a client that waits so long is never early; never negative."""
    return max(0, -int(-seconds // 1))


def rate_limit(policy: Policy, decision: Decision) -> Headers:
    """What every answer of a limited route carries."""
    reset_s = whole_seconds(decision.reset_s)
    policy_item, limit = _constant(policy)
    return (
        ("RateLimit-Policy", policy_item),
        ("RateLimit", f'"{policy.name}";r={decision.remaining};t={reset_s}'),
        ("X-RateLimit-Limit", limit),
        ("X-RateLimit-Remaining", str(decision.remaining)),
        ("X-RateLimit-Reset", str(reset_s)),
    )


def retry_after(decision: Decision) -> str:
    """At least one second: zero would invite an immediate repeat."""
    return str(max(1, whole_seconds(decision.reset_s)))


def refusal(policy: Policy, decision: Decision, request_id: str, *, is_oip: bool = False) -> bytes:
    """The 429 problem document, built from text: a flood must not pay for a model. With `is_oip` it has `error`, too.

    Request ids and policy names are checked where they come in: neither holds what JSON would escape.
    """
    detail = f"{_limit(policy)}Try again in {retry_after(decision)} s."
    error = f',"error":"{detail}"' if is_oip else ""
    return (
        f'{_HEAD}"detail":"{detail}",'
        f'"request_id":"{request_id}","errors":[],"violated-policies":["{policy.name}"]{error}}}'
    ).encode()


@functools.lru_cache(256)
def _constant(policy: Policy) -> tuple[str, str]:
    return f'"{policy.name}";q={policy.limit};w={policy.window_s}', str(policy.limit)


@functools.lru_cache(256)
def _limit(policy: Policy) -> str:
    return f"At most {policy.limit} in any {policy.window_s} s. "
