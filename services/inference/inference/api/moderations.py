"""OpenAI's moderation API: the categories are the model's labels, and the operator chooses those that flag a text."""

from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from common.http.app import context
from common.http.openapi import EXAMPLE_ID, operation
from common.http.problems import Problem
from common.runtime.settings import StartError
from inference.api.common import PREDICTIONS, OneOrMoreTexts, predict_all, served_name
from inference.engines.base import ModelCard
from inference.prediction.predictor import Prediction


@dataclass(frozen=True, slots=True)
class Moderation:
    """A text is flagged for each of `labels` whose score is at least `threshold`."""

    labels: frozenset[str]
    threshold: float

    def categories(self, scores: dict[str, float]) -> dict[str, bool]:
        return {label: label in self.labels and score >= self.threshold for label, score in scores.items()}


MODERATION: Final = web.AppKey("moderation", Moderation)


class ModerationRequest(BaseModel):
    """A text or a list of texts. `model` and other fields are ignored: clients name OpenAI's models."""

    model_config = ConfigDict(frozen=True)

    input: OneOrMoreTexts


class ModerationResult(BaseModel):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResponse(BaseModel):
    """One result per text, in order."""

    id: str
    model: str
    results: list[ModerationResult]


_LABELS: Final = ("NEGATIVE", "POSITIVE")


def add_routes(app: web.Application) -> None:
    app.router.add_post("/v1/moderations", moderate)


def parse_moderation(labels: str, threshold: float, card: ModelCard) -> Moderation:
    """Read a comma-separated list of labels. Raises StartError if the model lacks one."""
    names = {name.strip() for name in labels.split(",") if name.strip()}
    if unknown := names.difference(card.labels):
        raise StartError(
            f"INFERENCE_MODERATION_LABELS: {card.name} has no label {', '.join(sorted(unknown))}; "
            f"its labels are {', '.join(card.labels)}"
        )
    return Moderation(frozenset(names), threshold)


@operation(
    body=ModerationRequest,
    response=ModerationResponse,
    errors=(404, 503, 504),
    tag="inference",
    examples=[
        ModerationRequest(input=["Dreadful."]),
        ModerationResponse(
            id=f"modr-{EXAMPLE_ID}",
            model="sluice-sentiment-minilm",
            results=[
                ModerationResult(
                    flagged=True,
                    categories={"NEGATIVE": True, "POSITIVE": False},
                    category_scores={"NEGATIVE": 0.958, "POSITIVE": 0.042},
                    category_applied_input_types={label: ["text"] for label in _LABELS},
                )
            ],
        ),
    ],
)
async def moderate(request: web.Request, body: ModerationRequest) -> ModerationResponse:
    """Flag texts in the shape of OpenAI's moderation API, by the labels in `INFERENCE_MODERATION_LABELS`.

    Without that setting the answer is 404. There is no place for the error of a single text, so one invalid text is 422
    and names its position.
    """
    card, moderation = request.app[PREDICTIONS].card, request.app[MODERATION]
    if not moderation.labels:
        detail = "No label of this model flags a text. The operator can choose some in INFERENCE_MODERATION_LABELS."
        raise Problem(404, detail)
    predictions = await predict_all(request, body.input)
    return ModerationResponse(
        id=f"modr-{context(request).request_id}",
        model=served_name(card),
        results=[_result(moderation, prediction) for prediction in predictions],
    )


def _result(moderation: Moderation, prediction: Prediction) -> ModerationResult:
    categories = moderation.categories(prediction.scores)
    return ModerationResult(
        flagged=any(categories.values()),
        categories=categories,
        category_scores=prediction.scores,
        category_applied_input_types={label: ["text"] for label in categories},
    )
