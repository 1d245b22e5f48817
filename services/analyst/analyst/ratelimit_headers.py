"""How much of a policy is left, as a client hears it: draft-ietf-httpapi-ratelimit-headers; counts nothing."""

import math


def ratelimit_headers(policy: str, *, limit: int, window_s: float, left: int, wait_s: float) -> dict[str, str]:
    """Of a policy of at most `limit` in any `window_s`; `t` only while nothing is left, and where it is known."""
    reset = f";t={math.ceil(wait_s)}" if wait_s and not left else ""
    return {
        "RateLimit-Policy": f'"{policy}";q={limit};w={math.ceil(window_s)}',
        "RateLimit": f'"{policy}";r={left}{reset}',
    }
