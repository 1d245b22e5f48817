"""What every request gets at the door, whatever becomes of it: an id, a problem document for an error, metrics, a line
in the log. The edge's own pages are handed to the server that has them, the rest is the proxy's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import hdrs

from common.http.app import ErrorTable, problem_of, record_request
from common.http.context import REQUEST_ID, TIMEOUT_MS, TRACEPARENT, RequestContext, read_context, uuid7
from common.http.problems import CONTENT_TYPE, Problem
from common.runtime.logs import is_verbose
from common.runtime.loopback import is_localhost_header
from common.runtime.metrics import HttpMetrics
from edge_limiter.admin import NoAdmin
from edge_limiter.body import ClientGone
from edge_limiter.connection import Connection, Later
from edge_limiter.outgoing import Outgoing
from edge_limiter.pages import Pages
from edge_limiter.passage import Passage
from edge_limiter.proxy import Proxy
from edge_limiter.repeats import Refused, Repeats
from edge_limiter.request import Request
from edge_limiter.routing import Route, parse_target
from edge_limiter.wire import date

_NO_ROUTE: Final = "No such route; GET /openapi.json lists them."
_NOT_LOCAL: Final = (
    "This edge takes only requests for localhost or 127.0.0.1. Behind a proxy, name the proxy in EDGE_TRUSTED_PROXIES."
)
UNMATCHED: Final = "unmatched"
_TOLD: Final = frozenset({"x-request-id", "traceparent", "x-request-timeout-ms"})


@dataclass(frozen=True, slots=True)
class Boundary:
    """`hash_client` says in the line of a refused administrator whether it was the same client again, and not which."""

    proxy: Proxy
    pages: Pages
    metrics: HttpMetrics
    errors: ErrorTable
    default_timeout_s: float
    maximum_timeout_s: float
    hash_client: Callable[[str], str | None]
    repeats: Repeats
    is_local: bool

    def handle(self, request: Request, connection: Connection) -> Later | None:
        """Answer one request: at once if nothing has to be waited for, else what is given back will.

        Raises nothing.
        """
        started_s = time.monotonic()
        connection.is_refused = False
        passage = Passage(request, connection, self._context(request, started_s), started_s)
        try:
            if not self._is_answered(passage):
                return partial(self._finish, passage)
        except Exception as error:
            self._fail(passage, error)
        self._end(passage)
        return None

    def again(self, peer: str, data: bytes) -> bytes | None:
        """The answer to a request that was refused before, byte for byte, and still is; None for one to be read."""
        refused = self.repeats.get(peer, data, self.proxy.policies.rules)
        if refused is None or is_verbose():  # then it gets its line in the log
            return None
        started_s = time.monotonic()
        answer = self.proxy.refuse_again(refused, uuid7())
        if answer is not None:
            self.metrics.observe(refused.route.pattern, refused.method, 429, time.monotonic() - started_s)
        return answer

    async def _finish(self, passage: Passage) -> None:
        try:
            await self.proxy.finish(passage)
        except ClientGone:
            pass
        except Exception as error:
            self._fail(passage, error)
        finally:
            self._end(passage)

    def _is_answered(self, passage: Passage) -> bool:
        request = passage.request
        if request.refusal is not None:
            raise request.refusal
        if self.is_local and not is_localhost_header(request.fields.get("host", "")):
            raise Problem(403, _NOT_LOCAL)
        target = passage.target = parse_target(request.target)
        if self.pages.has(target.path):
            self.pages.take_over(request, target, passage.ctx, passage.connection)
            passage.is_elsewhere = True
            return True
        route = passage.route = self.proxy.routes.match(request.method, target.path)
        if route is None:
            raise Problem(404, _NO_ROUTE)
        if not self.proxy.is_refused(passage, route):
            return False
        self._remember(passage, route)
        return True

    def _remember(self, passage: Passage, route: Route) -> None:
        """A request like this need not be read again, unless its answer has no body, it has an id or deadline
        of its own, or shadow rules count it.
        """
        request, connection, rule = passage.request, passage.connection, passage.rule
        connection.is_refused = True
        if request.whole is None or passage.out.closes or request.method == "HEAD" or passage.shadows:
            return
        if rule is not None and _TOLD.isdisjoint(request.fields):
            refused = Refused(request.method, route, rule, passage.key)
            self.repeats.put(connection.peer, request.whole, refused, self.proxy.policies.rules)

    def _end(self, passage: Passage) -> None:
        passage.request.body.free_room()
        if not passage.is_elsewhere:
            self._record(passage)
        if (cause := passage.cause) is not None:  # each holds the other: a circle that only the collector could undo
            cause.__traceback__ = passage.cause = None

    def _context(self, request: Request, now: float) -> RequestContext:
        fields = request.fields
        if _TOLD.isdisjoint(fields):
            return RequestContext(uuid7(), None, None, now + self.default_timeout_s)
        told = {
            REQUEST_ID: fields.get("x-request-id", ""),
            TRACEPARENT: fields.get("traceparent", ""),
            TIMEOUT_MS: fields.get("x-request-timeout-ms", ""),
        }
        return read_context(told, now, default_s=self.default_timeout_s, maximum_s=self.maximum_timeout_s)

    def _fail(self, passage: Passage, error: Exception) -> None:
        """The client hears of `error`; an answer that has begun can only be cut."""
        problem = problem_of(self.errors, error)
        passage.cause, passage.status = error, problem.status
        if passage.route is not None:
            self.proxy.refusals.count(problem.status, passage.route.pattern, passage.route.policy)
        if passage.out.has_begun:
            passage.out.cut()
        else:
            is_oip = passage.route is not None and passage.route.is_oip
            send_problem(passage.out, problem, passage.ctx.request_id, is_oip=is_oip)

    def _record(self, passage: Passage) -> None:
        status, method = passage.status, passage.request.method
        seconds = time.monotonic() - passage.started_s
        route = passage.route.pattern if passage.route is not None else UNMATCHED
        self.metrics.observe(route, method, status, seconds)
        is_ours = passage.cause is not None  # what an upstream answered stands in the log of the upstream
        if is_ours or is_verbose():
            told = {"request_id": passage.ctx.request_id, "trace_id": passage.ctx.trace_id}
            if isinstance(passage.cause, NoAdmin):
                told["client"] = self.hash_client(passage.client.address)
            record_request(route, method, status, seconds, passage.cause, **told)


def send_problem(out: Outgoing, problem: Problem, request_id: str, *, is_oip: bool = False) -> None:
    """Render as `application/problem+json`; a problem that says `Connection: close` ends the connection.

    With `is_oip` it has the member `error`, too, for those who look for nothing else.
    """
    told_besides = {"error": str(problem)} if is_oip else {}
    document = problem.document.model_copy(update={"request_id": request_id, **told_besides})
    told = {name: value for name, value in problem.headers.items() if name != hdrs.CONNECTION}
    headers = [
        ("Content-Type", CONTENT_TYPE),
        date(),
        (REQUEST_ID, request_id),
        *told.items(),
    ]
    body = document.model_dump_json(exclude_none=True).encode()
    out.send(problem.status, headers, body, close=hdrs.CONNECTION in problem.headers)
