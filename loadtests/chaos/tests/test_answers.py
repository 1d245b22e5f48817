import json

import pytest

from chaos.answers import fault_of, kind_of

PROBLEM = {"type": "about:blank", "title": "Too Many Requests", "status": 429, "request_id": "one"}


def test_problem_of_this_answer_with_retry_after__is_what_was_promised() -> None:
    assert fault_of(429, "problem", json.dumps(PROBLEM).encode(), "3", "one") == ""
    assert fault_of(200, "json", b"{}", None, "one") == ""


@pytest.mark.parametrize(
    ("changes", "retry_after"),
    [
        ({"status": 503}, "3"),
        ({"request_id": "two"}, "3"),
        ({"title": None}, "3"),
        ({}, None),
        ({}, "soon"),
        ({}, "-1"),
    ],
)
def test_other_problem__is_named(changes: dict[str, object], retry_after: str | None) -> None:
    body = {name: value for name, value in {**PROBLEM, **changes}.items() if value is not None}
    assert fault_of(429, "problem", json.dumps(body).encode(), retry_after, "one")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'"text"'])
def test_body_that_is_no_document__is_named(body: bytes) -> None:
    assert fault_of(502, "problem", body, None, "one")
    assert fault_of(502, "other", body, None, "one")


def test_success_that_is_no_json__is_named() -> None:
    assert fault_of(200, kind_of("text/html; charset=utf-8"), b"", None, "one")
    assert kind_of("Application/Problem+JSON; charset=utf-8") == "problem"
