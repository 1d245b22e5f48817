"""Every response that the proxy makes itself: rate-limit headers, the 429, and problem documents."""

import functools
from typing import Final, NamedTuple

from aiohttp import hdrs

from common.http.app import ErrorTable
from common.http.context import REQUEST_ID
from common.http.problems import CONTENT_TYPE, Problem, unavailable
from edge_limiter.proxy.admin import NotLocal, TokenNotSet, TokenRequired
from edge_limiter.proxy.routing import BadTarget
from edge_limiter.ratelimit.policy import Decision, Policy
from edge_limiter.server.request import BodyTooLarge
from edge_limiter.server.response import ResponseWriter, date_header
from edge_limiter.server.validation import BadRequest, Headers
from edge_limiter.upstream.errors import UpstreamError, UpstreamOverloaded, UpstreamTimeout

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
RETRY_S: Final = 1.0
_CLOSE: Final = {"Connection": "close"}


def too_large() -> Problem:
    return Problem(413, "The body is larger than this service takes.", headers=_CLOSE)


def bad_request(error: BadRequest) -> Problem:
    """Return the problem for a request that the server refused; the connection closes after it."""
    problem = unavailable(error.detail, RETRY_S) if error.status == 503 else Problem(error.status, error.detail)
    problem.headers.update(_CLOSE)
    return problem


def upstream_problem(error: UpstreamError, service: str) -> Problem:
    """Return 502, 503 or 504 with the name of the service and no text of the error."""
    if isinstance(error, UpstreamTimeout):
        return Problem(504, f"The {service} service did not answer in time.")
    if isinstance(error, UpstreamOverloaded):
        return unavailable(f"The {service} service is full.", RETRY_S)
    return Problem(502, f"The {service} service cannot be reached or broke off.")


ERRORS: Final[ErrorTable] = {
    BadTarget: lambda error: Problem(400, str(error), title="Malformed request target", headers=_CLOSE),
    BadRequest: bad_request,
    BodyTooLarge: lambda _: too_large(),
    TokenRequired: lambda _: Problem(
        401, "Send the admin token as Authorization: Bearer.", headers={"WWW-Authenticate": 'Bearer realm="sluice"'}
    ),
    TokenNotSet: lambda _: Problem(
        403,
        "No admin token is set, and other machines can reach the edge, perhaps through a proxy: set EDGE_ADMIN_TOKEN.",
    ),
    NotLocal: lambda _: Problem(
        403,
        "No admin token is set, so this takes only direct requests whose Host is localhost or 127.0.0.1: "
        "set EDGE_ADMIN_TOKEN.",
    ),
}


def send_problem(response: ResponseWriter, problem: Problem, request_id: str, *, is_oip: bool) -> None:
    """Send an `application/problem+json` document; with `Connection: close` among its headers the connection closes.

    `is_oip` adds the member `error`, where clients of the Open Inference Protocol look for it.
    """
    extra = {"error": str(problem)} if is_oip else {}
    document = problem.document.model_copy(update={"request_id": request_id, **extra})
    headers = _base_headers(request_id)
    headers += [pair for pair in problem.headers.items() if pair[0] != hdrs.CONNECTION]
    body = document.model_dump_json(exclude_none=True).encode()
    response.send(problem.status, headers, body, close=hdrs.CONNECTION in problem.headers)


def rate_limit_headers(policy: Policy, decision: Decision) -> tuple[tuple[str, str], ...]:
    """Return what every response of a limited route carries (draft-ietf-httpapi-ratelimit-headers, and X-RateLimit)."""
    return _headers(policy.name, policy.limit, policy.window_s, decision.remaining, whole_seconds(decision.reset_s))


class Refusal(NamedTuple):
    """The rendered 429 except for its date and request id."""

    headers: str
    before_id: str
    after_id: str

    def body(self, request_id: str) -> bytes:
        """Return the problem document. The id was validated: JSON would escape nothing in it."""
        return f"{self.before_id}{request_id}{self.after_id}".encode()


def refusal(policy: Policy, decision: Decision, *, is_oip: bool = False) -> Refusal:
    """Return the 429, rendered once for all clients that wait equally long: a flood must be cheap."""
    reset_s = whole_seconds(decision.reset_s)
    return _refusal(policy.name, policy.limit, policy.window_s, decision.remaining, reset_s, is_oip)


def send_refusal(response: ResponseWriter, refused: Refusal, request_id: str) -> None:
    """Send a 429."""
    response.send(429, _base_headers(request_id), refused.body(request_id), rendered=refused.headers)


def whole_seconds(seconds: float) -> int:
    """Round up, so that a client that waits so long is never early; never negative."""
    return max(0, -int(-seconds // 1))


@functools.lru_cache(1024)
def _refusal(name: str, limit: int, window_s: int, remaining: int, reset_s: int, is_oip: bool) -> Refusal:
    retry_s = max(1, reset_s)  # zero would invite an immediate repeat
    detail = f"At most {limit} in any {window_s} s. Try again in {retry_s} s."
    error = f',"error":"{detail}"' if is_oip else ""
    headers = (("Retry-After", str(retry_s)), *_headers(name, limit, window_s, remaining, reset_s))
    return Refusal(
        "".join([f"{header}: {value}\r\n" for header, value in headers]),
        f'{{"type":"{QUOTA_EXCEEDED}","title":"Quota exceeded","status":429,"detail":"{detail}","request_id":"',
        f'","errors":[],"violated-policies":["{name}"]{error}}}',
    )


def _headers(name: str, limit: int, window_s: int, remaining: int, reset_s: int) -> tuple[tuple[str, str], ...]:
    return (
        ("RateLimit-Policy", f'"{name}";q={limit};w={window_s}'),
        ("RateLimit", f'"{name}";r={remaining};t={reset_s}'),
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(remaining)),
        ("X-RateLimit-Reset", str(reset_s)),
    )


def _base_headers(request_id: str) -> Headers:
    return [("Content-Type", CONTENT_TYPE), date_header(), (REQUEST_ID, request_id)]
