"""Problem documents name what is wrong and echo nothing."""

import json
import uuid
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.http.problems import MAX_FIELD_ERRORS, FieldError, Problem, field_errors, unavailable

SECRET = "hunter2-wrong"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = 0
    name: Annotated[str, Field(pattern="^a+$")] = "a"
    level: Literal["low", "high"] = "low"
    id: uuid.UUID | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    items: list[int] = []


def errors_of(body: object) -> list[FieldError]:
    with pytest.raises(ValidationError) as raised:
        Everything.model_validate_json(json.dumps(body), strict=True)
    return field_errors(raised.value, "body")


def document(problem: Problem) -> dict[str, object]:
    body = problem.response("r-1").body
    assert isinstance(body, bytes)
    return dict(json.loads(body))


def test_problem__is_an_rfc_9457_document() -> None:
    problem = Problem(409, "Taken.", headers={"X-Extra": "1"}, extra={"balance": 3})
    response = problem.response("r-1")
    assert response.status == 409
    assert response.content_type == "application/problem+json"
    assert response.headers["X-Extra"] == "1"
    assert document(problem) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Taken.",
        "request_id": "r-1",
        "errors": [],
        "balance": 3,
    }


@pytest.mark.parametrize(("after_s", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")])
def test_retry_after__is_rounded_up_to_whole_seconds(after_s: float, header: str) -> None:
    assert unavailable("Full.", after_s).headers == {"Retry-After": header}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": SECRET}, "n"),
        ({"name": SECRET}, "name"),
        ({"level": SECRET}, "level"),
        ({"id": SECRET}, "id"),
        ({"pet": {"kind": SECRET}}, "pet"),
        ({"items": [1, SECRET]}, "items.1"),
        ({"items": SECRET}, "items"),
        ({"nmae": "a"}, "nmae"),
        ({f"{SECRET} with spaces": 1}, "?"),
        ({"\n<script>": 1}, "?"),
        ({"k" * 1000: 1}, "?"),
        (SECRET, ""),
    ],
)
def test_field_error__names_the_field_and_never_the_value(body: object, field: str) -> None:
    (error,) = errors_of(body)
    assert error.field == field
    assert SECRET not in error.model_dump_json()


def test_many_field_errors__are_cut_and_thousands_are_not_listed() -> None:
    """To list them costs half a second for each megabyte."""
    assert len(errors_of({f"unknown{number}": 1 for number in range(1000)})) == MAX_FIELD_ERRORS
    (error,) = errors_of({f"unknown{number}": 1 for number in range(1001)})
    assert (error.field, error.message) == ("", "More than 1000 fields are not valid")
