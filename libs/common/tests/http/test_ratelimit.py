import json

import pytest

from common.http.problems import ProblemDocument
from common.http.ratelimit import (
    QUOTA_EXCEEDED,
    Limit,
    quota_exceeded,
    rate_limit_headers,
    too_many_requests,
    whole_seconds,
)

EXCEEDED = Limit("predict", 60, 60, 0, 7)


def test_headers__describe_policy_and_what_is_left() -> None:
    assert dict(rate_limit_headers(Limit("predict", 60, 60, 12, 7))) == {
        "RateLimit-Policy": '"predict";q=60;w=60',
        "RateLimit": '"predict";r=12;t=7',
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "12",
        "X-RateLimit-Reset": "7",
    }


def test_headers__of_an_unknown_reset_leave_it_out() -> None:
    headers = dict(rate_limit_headers(Limit("gemini", 10, 61, 2, None)))
    assert headers["RateLimit"] == '"gemini";r=2'
    assert "X-RateLimit-Reset" not in headers


@pytest.mark.parametrize(("reset_s", "retry_s"), [(7, "7"), (1, "1"), (0, "1"), (None, "1")])
def test_retry_after__is_at_least_one_second(reset_s: int | None, retry_s: str) -> None:
    limit = Limit("predict", 60, 60, 0, reset_s)
    assert f"Retry-After: {retry_s}\r\n" in quota_exceeded(limit).header_lines
    assert too_many_requests(limit, "Used up.").headers["Retry-After"] == retry_s


@pytest.mark.parametrize(("seconds", "whole"), [(6.0, 6), (6.001, 7), (0.2, 1), (0.0, 0), (-3.0, 0)])
def test_whole_seconds__rounds_up_and_is_never_negative(seconds: float, whole: int) -> None:
    assert whole_seconds(seconds) == whole


def test_rendered_429__is_a_problem_document() -> None:
    body = json.loads(quota_exceeded(EXCEEDED).body("id-1"))
    document = ProblemDocument.model_validate(body)
    assert (document.type, document.status, document.request_id) == (QUOTA_EXCEEDED, 429, "id-1")
    assert body["violated-policies"] == ["predict"]
    assert body["detail"] == "At most 60 in any 60 s. Try again in 7 s."
    assert json.loads(quota_exceeded(EXCEEDED, is_oip=True).body("id-1")) == body | {"error": body["detail"]}


def test_rendered_429__has_the_headers_of_its_limit() -> None:
    other = EXCEEDED._replace(window_s=30, remaining=2)
    lines = quota_exceeded(other).header_lines.splitlines()
    assert dict(line.split(": ") for line in lines) == {"Retry-After": "7", **dict(rate_limit_headers(other))}


def test_problem__equals_the_rendered_429() -> None:
    problem = too_many_requests(EXCEEDED, "At most 60 in any 60 s. Try again in 7 s.")
    rendered = quota_exceeded(EXCEEDED)
    document = problem.document.model_copy(update={"request_id": "id-1"})
    assert json.loads(document.model_dump_json(exclude_none=True)) == json.loads(rendered.body("id-1"))
    assert "".join(f"{name}: {value}\r\n" for name, value in problem.headers.items()) == rendered.header_lines
