"""Where a request goes: its normalised path, and the route with its service, policy, cost and admin rule.

Rejects every target that two parsers could read differently. The path matched here is the path sent upstream.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from edge_limiter.server.request import METHODS

INFERENCE: Final = "inference"
METRICS: Final = "metrics"
ANALYST: Final = "analyst"

Cost = Literal["one", "texts", "inputs", "input", "instances", "tensor"]
"""How many units a request costs: one, or as many as its JSON list has texts (see `cost.py`)."""

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?|/", re.ASCII)
_TARGET: Final = re.compile(r"/[!$&'()*+,;=:@%/A-Za-z0-9._~-]*", re.ASCII)
_QUERY: Final = re.compile(r"[!\"$-~]*", re.ASCII)  # printable and no fragment
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_~-]", re.ASCII)
_REFUSED_ESCAPES: Final = frozenset({0x2F, 0x5C, 0x2E, 0x25, 0x3B, 0x3F, 0x23, 0x7F, *range(0x20)})


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` is a path; its `{…}` segments match any one segment, and with `prefix` it includes every path below.

    The pattern is the route's name in metrics and events, so the number of names is bounded.
    """

    pattern: str
    service: str
    methods: frozenset[str] | None = None
    prefix: bool = False
    policy: str | None = None
    cost: Cost = "one"
    needs_admin: bool = False

    @property
    def is_oip(self) -> bool:
        """Whether its clients speak the Open Inference Protocol, which has errors in the member `error`."""
        return self.pattern.startswith("/v2")


_POST: Final = frozenset({"POST"})
_WRITES: Final = frozenset({"PUT", "DELETE", "PATCH"})
_INFERENCE_ROOTS: Final = ("/predict", "/models", "/classify", "/v1", "/v2")

ROUTES: Final = (
    Route("/predict", INFERENCE, _POST, policy="predict"),
    Route("/predict/batch", INFERENCE, _POST, policy="predict", cost="texts"),
    Route("/models/{model}", INFERENCE, _POST, policy="predict", cost="inputs"),
    Route("/v2/models/{model}/infer", INFERENCE, _POST, policy="predict", cost="tensor"),
    Route("/v2/models/{model}/versions/{version}/infer", INFERENCE, _POST, policy="predict", cost="tensor"),
    *(Route(path, INFERENCE, _POST, policy="predict", cost="input") for path in ("/classify", "/v1/classify")),
    Route("/v1/moderations", INFERENCE, _POST, policy="predict", cost="input"),
    # Any last segment matches, so that an escaped ":predict" does not get past the count of its texts.
    Route("/v1/models/{model}:predict", INFERENCE, _POST, policy="predict", cost="instances"),
    # Every other path of inference is limited too, so that a route added there does not bypass the limit.
    *(Route(path, INFERENCE, READS, prefix=True) for path in _INFERENCE_ROOTS),
    *(Route(path, INFERENCE, prefix=True, policy="predict") for path in _INFERENCE_ROOTS),
    Route("/metrics/predictions", METRICS, prefix=True, policy="metrics", needs_admin=True),
    Route("/metrics/feedback", METRICS, prefix=True, policy="metrics", needs_admin=True),
    Route("/metrics", METRICS, _WRITES, prefix=True, policy="metrics", needs_admin=True),
    # An open dashboard sends 16 requests a minute here, and up to 36 while its stream cannot connect.
    Route("/metrics", METRICS, prefix=True, policy="metrics"),
    Route("/dashboard", METRICS, READS, prefix=True),
    Route("/analyze/performance", ANALYST, _POST, policy="analyze"),
    Route("/analyze/reports", ANALYST, prefix=True, needs_admin=True),
    Route("/analyze", ANALYST, _WRITES, prefix=True, needs_admin=True),
    Route("/analyze", ANALYST, prefix=True),
)
"""The public surface."""


class BadTarget(Exception):
    """The request target is not one plain origin-form path. The message does not repeat the target."""


class Target(NamedTuple):
    """A normalised path (unreserved characters unescaped, the rest as upper-case escapes) and the raw query."""

    path: str
    query: str

    @property
    def path_and_query(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def parse_target(raw: str) -> Target:
    """Normalise the target of a request line. Raises BadTarget."""
    path, _, query = raw.partition("?")
    if not _PLAIN.fullmatch(path) or "/." in path:
        path = _normalise(path)
    if query and not _QUERY.fullmatch(query):
        raise BadTarget("The query holds a character that must be escaped.")
    return Target(path, query)


def _normalise(path: str) -> str:
    if not path.startswith("/"):
        raise BadTarget("The request target must be a path.")
    if not _TARGET.fullmatch(path):
        raise BadTarget("The path holds a character that must be escaped.")
    path = _ESCAPE.sub(_unescape, path)
    if "//" in path:
        raise BadTarget("The path holds an empty segment.")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise BadTarget("The path holds a dot segment.")
    return path


def _unescape(match: re.Match[str]) -> str:
    if match.group(1) is None:
        raise BadTarget("The path holds a malformed escape.")
    code = int(match.group(1), 16)
    if code in _REFUSED_ESCAPES:
        raise BadTarget("The path holds an escape that could change its meaning.")
    if code < 0x80 and _UNRESERVED.fullmatch(chr(code)):
        return chr(code)
    return f"%{code:02X}"


class RouteTable:
    """Looks routes up by method and path: an exact path first, then the most literal and longest pattern."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[tuple[str, str], Route | None] = {}
        ranked = sorted(self.routes, key=_rank, reverse=True)
        self._patterns = [(_compile(route), route) for route in ranked]
        for route in self.routes:
            if "{" not in route.pattern:
                for method in route.methods or METHODS:
                    self._exact[method, route.pattern] = self._search(method, route.pattern)

    def match(self, method: str, path: str) -> Route | None:
        """Return the route for a request, or None."""
        return self._exact.get((method, path)) or self._search(method, path)

    def _search(self, method: str, path: str) -> Route | None:
        for pattern, route in self._patterns:
            if (route.methods is None or method in route.methods) and pattern.fullmatch(path):
                return route
        return None


def _compile(route: Route) -> re.Pattern[str]:
    segments = ("[^/]+" if segment.startswith("{") else re.escape(segment) for segment in route.pattern.split("/"))
    return re.compile("/".join(segments) + ("(?:/.*)?" if route.prefix else ""))


def _rank(route: Route) -> tuple[int, bool, int, bool]:
    """Rank longer patterns first, then exact, more literal, and method-specific ones."""
    return (
        route.pattern.count("/"),
        not route.prefix,
        -route.pattern.count("{"),
        route.methods is not None,
    )
