"""The ops port: liveness, readiness and Prometheus metrics. It is never public."""

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
"""`failed`: this process cannot respond. `degraded`: it responds in a reduced mode and stays in rotation."""

CHECK_TIMEOUT_S: Final = 1.0


@dataclass(slots=True)
class Readiness:
    """The named checks of a process. Only a process that cannot respond is not ready."""

    checks: Mapping[str, Check] = field(default_factory=dict)
    starting: bool = False
    draining: bool = False

    async def report(self) -> tuple[State, dict[str, State]]:
        """Run all checks concurrently. A check that hangs or raises counts as degraded."""
        states = await asyncio.gather(*(_bounded(name, check) for name, check in self.checks.items()))
        named: dict[str, State] = dict(zip(self.checks, states, strict=True))
        if self.starting:
            named["starting"] = "failed"
        if self.draining:
            named["draining"] = "failed"
        return worst(named.values()), named


def worst(states: Iterable[State]) -> State:
    """Return the worst state; `ok` without any."""
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
    """Return the app with `/livez`, `/readyz` (503 only on a failed check) and `/metrics`.

    `is_local`: see `common.http.app.AppConfig`.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        status, checks = await readiness.report()
        return web.json_response({"status": status, "checks": checks}, status=503 if status == "failed" else 200)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application(middlewares=[_localhost_only] if is_local else ())
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


@web.middleware
async def _localhost_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not is_localhost_header(request.headers.get(hdrs.HOST, "")):
        raise web.HTTPForbidden(text=LOCALHOST_ONLY)
    return await handler(request)
