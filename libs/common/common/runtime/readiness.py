"""The ops port: liveness, readiness and Prometheus metrics; never proxied, never public."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from common.runtime.loopback import LOCALHOST_ONLY, is_localhost_header

log = structlog.get_logger()

State = Literal["ok", "degraded", "failed"]
Check = Callable[[], Awaitable[State]]
"""`failed`: this process can't answer at all. `degraded`: it answers in a lesser mode; the pod stays in."""

CHECK_TIMEOUT_S: Final = 1.0


@dataclass(slots=True)
class Readiness:
    """Named checks of one process; red only when the process itself cannot answer."""

    checks: Mapping[str, Check] = field(default_factory=dict)
    starting: bool = False
    draining: bool = False

    async def report(self) -> tuple[State, dict[str, State]]:
        """Run all checks at once. One that hangs or raises counts as degraded: not to know is not to be gone."""
        states = await asyncio.gather(*(_bounded(name, check) for name, check in self.checks.items()))
        named: dict[str, State] = dict(zip(self.checks, states, strict=True))
        if self.starting:
            named["starting"] = "failed"
        if self.draining:
            named["draining"] = "failed"
        return worst(named.values()), named


def worst(states: Iterable[State]) -> State:
    """The worst of several states; no states at all is fine."""
    found = set(states)
    return "failed" if "failed" in found else "degraded" if "degraded" in found else "ok"


async def _bounded(name: str, check: Check) -> State:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return "degraded"
    except Exception:
        log.exception("readiness check failed", check=name)
        return "degraded"


def create_ops_app(readiness: Readiness, registry: CollectorRegistry, *, is_local: bool = False) -> web.Application:
    """`/livez` touches no dependency; `/readyz` answers 503 only on a failed check; `/metrics` heeds Accept.

    `is_local`: as `common.http.app.Door` has it.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        status, checks = await readiness.report()
        return web.json_response({"status": status, "checks": checks}, status=503 if status == "failed" else 200)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application(middlewares=[_by_name] if is_local else ())
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


@web.middleware
async def _by_name(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not is_localhost_header(request.headers.get(hdrs.HOST, "")):
        raise web.HTTPForbidden(text=LOCALHOST_ONLY)
    return await handler(request)
