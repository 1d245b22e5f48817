"""What is known of one request on its way through the proxy."""

from dataclasses import dataclass, field

from common.http.app import CLIENT_LEFT
from common.http.context import RequestContext
from edge_limiter.proxy.routes import Route, Target
from edge_limiter.ratelimit.identity import Client
from edge_limiter.ratelimit.policy_set import Counted
from edge_limiter.server.request import Request
from edge_limiter.server.response import ResponseWriter


@dataclass(slots=True)
class RequestState:
    """`limit_headers` is empty until the limit was decided. `cause` is the exception that ended the request early.

    `units` is what the request counts, before the factor of a rule; 0 until its texts were counted.
    """

    request: Request
    response: ResponseWriter
    ctx: RequestContext
    started_s: float
    target: Target = field(init=False)
    route: Route = field(init=False)
    client: Client = field(init=False)
    units: int = 0
    shadows: tuple[Counted, ...] = ()
    limit_headers: tuple[tuple[str, str], ...] = ()
    status: int = CLIENT_LEFT
    cause: Exception | None = None
