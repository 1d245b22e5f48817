"""How much of a policy is left, as a client hears it: draft-ietf-httpapi-ratelimit-headers; counts nothing."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `limit` in any `window_s`, under the name that `RateLimit` and `violated-policies` have."""

    name: str
    limit: int
    window_s: float


def ratelimit_headers(policy: Policy, left: int, wait_s: float) -> dict[str, str]:
    """`t` only while nothing is left, and where it is known."""
    reset = f";t={math.ceil(wait_s)}" if wait_s and not left else ""
    return {
        "RateLimit-Policy": f'"{policy.name}";q={policy.limit};w={math.ceil(policy.window_s)}',
        "RateLimit": f'"{policy.name}";r={left}{reset}',
    }
