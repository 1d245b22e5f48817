"""`GET /limits` on the ops port: a client's usage, for support staff. It queries the store and charges nothing."""

import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from common.http.problems import Problem, unavailable
from common.stores.postgres import POSTGRES_ERRORS
from edge_limiter.ratelimit.identity import Clients
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy_set import PolicySet, key_bucket

RETRY_S: Final = 1.0
USAGE: Final = "Ask with policy=NAME and either address=ADDRESS or key=SHA256, the digest of an API key in hexadecimal."


@dataclass(frozen=True, slots=True)
class LimitLookup:
    """`used` returns the units used in a key's window, and the seconds until the oldest expires."""

    policies: PolicySet
    limiter: Limiter
    clients: Clients
    used: Callable[[bytes, int], Awaitable[tuple[int, float]]]

    async def read(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(await self._state(request.query.get("policy", ""), self._bucket(request)))
        except Problem as problem:
            return problem.response()

    def _bucket(self, request: web.Request) -> bytes:
        address, key = request.query.get("address"), request.query.get("key")
        try:
            if address is not None and key is None:
                return self.clients.of(address).bucket
            if key is not None and address is None and len(key) == 64:
                return key_bucket(binascii.unhexlify(key))
        except ValueError:
            pass
        raise Problem(400, USAGE)

    async def _state(self, name: str, bucket: bytes) -> dict[str, object]:
        policy = self.policies.named(name)
        if policy is None:
            raise Problem(404, "There is no such policy.")
        try:
            used, reset_s = await self.used(self.limiter.key(policy, bucket), policy.window_s)
        except POSTGRES_ERRORS as error:
            raise unavailable("The store is unavailable.", RETRY_S) from error
        return {
            "policy": policy.name,
            "limit": policy.limit,
            "window_s": policy.window_s,
            "used": used,
            "remaining": max(0, policy.limit - used),
            "reset_s": round(reset_s, 3),
        }
