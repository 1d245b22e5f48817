import json

import pytest

from common.http.app import problem_of
from common.http.problems import ProblemDocument
from edge_limiter.proxy.responses import ERRORS, QUOTA_EXCEEDED, rate_limit_headers, refusal
from edge_limiter.ratelimit.policy import Decision, Policy
from edge_limiter.server.validation import BadRequest

POLICY = Policy("predict", 60, 60)


def decision(*, remaining: int = 0, reset_s: float = 6.2) -> Decision:
    return Decision(remaining > 0, remaining, reset_s, "store")


def test_headers__tell_policy_remaining_and_reset() -> None:
    assert dict(rate_limit_headers(POLICY, decision(remaining=12))) == {
        "RateLimit-Policy": '"predict";q=60;w=60',
        "RateLimit": '"predict";r=12;t=7',
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "12",
        "X-RateLimit-Reset": "7",
    }


@pytest.mark.parametrize(("reset_s", "seconds"), [(6.0, "6"), (6.001, "7"), (0.2, "1"), (0.0, "1"), (-3.0, "1")])
def test_retry_after__is_rounded_up_and_at_least_a_second(reset_s: float, seconds: str) -> None:
    assert f"Retry-After: {seconds}\r\n" in refusal(POLICY, decision(reset_s=reset_s)).headers


def test_refusal__is_a_problem_document() -> None:
    body = json.loads(refusal(POLICY, decision()).body("id-1"))
    document = ProblemDocument.model_validate(body)
    assert (document.type, document.status, document.request_id) == (QUOTA_EXCEEDED, 429, "id-1")
    assert body["violated-policies"] == ["predict"]
    assert body["detail"] == "At most 60 in any 60 s. Try again in 7 s."
    assert json.loads(refusal(POLICY, decision(), is_oip=True).body("id-1")) == body | {"error": body["detail"]}


def test_refusal__tells_each_policy_and_wait_its_own() -> None:
    other = Policy("predict", 60, 30)
    assert refusal(other, decision()).headers != refusal(POLICY, decision()).headers
    told = refusal(POLICY, decision(remaining=2, reset_s=8.0))
    assert dict(line.split(": ") for line in told.headers.splitlines()) == {
        "Retry-After": "8",
        **dict(rate_limit_headers(POLICY, decision(remaining=2, reset_s=8.0))),
    }


def test_bad_request__closes_the_connection_and_503_says_when_to_retry() -> None:
    assert problem_of(ERRORS, BadRequest(503, "full")).headers == {"Retry-After": "1", "Connection": "close"}
    assert problem_of(ERRORS, BadRequest(400, "malformed")).headers == {"Connection": "close"}
