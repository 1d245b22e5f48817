"""True labels of predictions, sent once they are known."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict

from common.contracts.windows import Body


def _version_7(value: UUID) -> UUID:
    if value.version != 7:
        raise ValueError("it must be an id that this service assigned, a UUIDv7")
    return value


def _integral(value: object) -> object:
    """Accept 3.0 as 3: to JSON Schema it is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[
    UUID,
    AfterValidator(_version_7),
    WithJsonSchema(
        {
            "type": "string",
            "format": "uuid",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        }
    ),
]
Place = Annotated[int, Field(ge=0, le=10_000)]
_ID: JsonDict = {"type": "string"}
_NULL: JsonDict = {"type": "null"}


class FeedbackItem(Body):
    """The true label of one prediction, named by its id, or by its request and its place in a batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["prediction_id"], "properties": {"prediction_id": _ID, "request_id": _NULL}},
                {"required": ["request_id"], "properties": {"request_id": _ID, "prediction_id": _NULL}},
            ]
        }
    )

    prediction_id: Id | None = None
    request_id: Id | None = None
    index: Annotated[
        Place,
        BeforeValidator(_integral, json_schema_input_type=Place),
        Field(description="Place in the batch of `request_id`."),
    ] = 0
    label: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.prediction_id is None) == (self.request_id is None):
            raise ValueError("give either prediction_id or request_id")
        return self


class FeedbackRequest(Body):
    feedback: Annotated[list[FeedbackItem], Field(min_length=1, max_length=500)]


class FeedbackResult(Body):
    """`not_found`: unknown or not stored yet, so send it again. `expired`: no longer stored."""

    status: Literal["recorded", "replaced", "unchanged", "not_found", "expired", "not_answered"]
    prediction_id: str | None = None


class FeedbackResponse(Body):
    """One result for each item, in order. Sending an item again changes nothing."""

    results: list[FeedbackResult]
