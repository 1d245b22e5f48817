from common.http.app import problem_of
from edge_limiter.proxy.responses import ERRORS
from edge_limiter.server.request import BadRequest


def test_bad_request__closes_the_connection() -> None:
    assert problem_of(ERRORS, BadRequest(400, "malformed")).headers == {"Connection": "close"}


def test_bad_request__with_503_has_retry_after() -> None:
    assert problem_of(ERRORS, BadRequest(503, "full")).headers == {"Retry-After": "1", "Connection": "close"}
