import json

import pytest

from common.http.problems import ProblemDocument
from edge_limiter.ratelimit.policy import Decision, Policy
from edge_limiter.ratelimit_headers import QUOTA_EXCEEDED, rate_limit, refusal

POLICY = Policy("predict", 60, 60)


def decision(*, remaining: int = 0, reset_s: float = 6.2) -> Decision:
    return Decision(remaining > 0, remaining, reset_s, "store")


def test_headers__tell_policy_remaining_and_reset() -> None:
    assert dict(rate_limit(POLICY, decision(remaining=12))) == {
        "RateLimit-Policy": '"predict";q=60;w=60',
        "RateLimit": '"predict";r=12;t=7',
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "12",
        "X-RateLimit-Reset": "7",
    }


@pytest.mark.parametrize(("reset_s", "seconds"), [(6.0, "6"), (6.001, "7"), (0.2, "1"), (0.0, "1"), (-3.0, "1")])
def test_retry_after__is_rounded_up_and_at_least_a_second(reset_s: float, seconds: str) -> None:
    assert f"Retry-After: {seconds}\r\n" in refusal(POLICY, decision(reset_s=reset_s)).lines


def test_refusal__is_a_problem_document() -> None:
    body = json.loads(refusal(POLICY, decision()).body("id-1"))
    document = ProblemDocument.model_validate(body)
    assert (document.type, document.status, document.request_id) == (QUOTA_EXCEEDED, 429, "id-1")
    assert body["violated-policies"] == ["predict"]
    assert body["detail"] == "At most 60 in any 60 s. Try again in 7 s."
    assert json.loads(refusal(POLICY, decision(), is_oip=True).body("id-1")) == body | {"error": body["detail"]}


def test_refusal__tells_each_policy_and_wait_its_own() -> None:
    other = Policy("predict", 60, 30)
    assert refusal(other, decision()).lines != refusal(POLICY, decision()).lines
    told = refusal(POLICY, decision(remaining=2, reset_s=8.0))
    assert dict(line.split(": ") for line in told.lines.splitlines()) == {
        "Retry-After": "8",
        **dict(rate_limit(POLICY, decision(remaining=2, reset_s=8.0))),
    }
