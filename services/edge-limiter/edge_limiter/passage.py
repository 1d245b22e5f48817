"""One request on its way through the edge: what it asks for, who sent it, and what became of it."""

from common.http.app import CLIENT_LEFT
from common.http.context import RequestContext
from edge_limiter.connection import Connection
from edge_limiter.outgoing import Outgoing
from edge_limiter.ratelimit.identity import Client
from edge_limiter.ratelimit.policy_set import Counted, Rule
from edge_limiter.request import Request
from edge_limiter.routing import Route, Target

Limits = tuple[tuple[str, str], ...]
"""The headers that tell a client its limit."""


class Passage:
    """`rule` and `key` say what it is counted under, if it is; `limits` is empty until that was decided.

    `cause` is why it was refused or failed, if an exception says so.
    """

    __slots__ = (
        "cause",
        "client",
        "connection",
        "ctx",
        "is_elsewhere",
        "is_wrong_admin",
        "key",
        "limits",
        "out",
        "request",
        "route",
        "rule",
        "shadows",
        "started_s",
        "status",
        "target",
    )

    target: Target
    client: Client

    def __init__(self, request: Request, connection: Connection, ctx: RequestContext, started_s: float) -> None:
        self.request = request
        self.connection = connection
        self.out: Outgoing = connection.out
        self.ctx = ctx
        self.started_s = started_s
        self.route: Route | None = None
        self.rule: Rule | None = None
        self.shadows: tuple[Counted, ...] = ()
        self.key = b""
        self.limits: Limits = ()
        self.status = CLIENT_LEFT
        self.cause: Exception | None = None
        self.is_elsewhere = False
        self.is_wrong_admin = False
