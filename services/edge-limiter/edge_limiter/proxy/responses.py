"""Every error response of the proxy itself: the 429, and problem documents."""

from typing import Final

from aiohttp import hdrs

from common.http.app import ErrorTable
from common.http.context import REQUEST_ID
from common.http.problems import CONTENT_TYPE, Problem, unavailable
from common.http.ratelimit import Limit, quota_exceeded
from edge_limiter.proxy.routes import BadTarget
from edge_limiter.server.request import BadRequest, BodyTooLarge, Headers
from edge_limiter.server.response import ResponseWriter, date_header
from edge_limiter.upstream.errors import UpstreamError, UpstreamOverloaded, UpstreamTimeout

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


def send_refusal(response: ResponseWriter, limit: Limit, request_id: str, *, is_oip: bool) -> None:
    """Send a 429."""
    refused = quota_exceeded(limit, is_oip=is_oip)
    response.send(429, _base_headers(request_id), refused.body(request_id), rendered=refused.header_lines)


def _base_headers(request_id: str) -> Headers:
    return [("Content-Type", CONTENT_TYPE), date_header(), (REQUEST_ID, request_id)]
