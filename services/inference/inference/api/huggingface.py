"""The text-classification task of Hugging Face's inference API."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, RootModel

from common.http.openapi import operation
from common.http.problems import FieldError, Problem
from inference.api.common import PREDICTIONS, ModelPath, OneOrMoreTexts, check_model, predict_all
from inference.engines.base import ModelCard
from inference.prediction.predictor import Prediction


class ClassificationParameters(BaseModel):
    """`top_k` limits the labels of an answer; `function_to_apply` can only be the model's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid"] | None = None


class ClassificationRequest(BaseModel):
    """A text or a list of texts. Other fields, such as `options` of older clients, are ignored."""

    model_config = ConfigDict(frozen=True)

    inputs: OneOrMoreTexts
    parameters: ClassificationParameters = ClassificationParameters()


class LabelScore(BaseModel):
    label: str
    score: float


class Classifications(RootModel[list[list[LabelScore]]]):
    """One list per text, also for a single text, with the best label first."""


def add_routes(app: web.Application) -> None:
    app.router.add_post("/models/{model}", classify)


@operation(
    path=ModelPath,
    body=ClassificationRequest,
    response=Classifications,
    errors=(404, 503, 504),
    tag="inference",
    examples=[
        ClassificationRequest(inputs=["A wonderful film."], parameters=ClassificationParameters(top_k=1)),
        Classifications([[LabelScore(label="POSITIVE", score=0.9637638819531743)]]),
    ],
)
async def classify(request: web.Request, path: ModelPath, body: ClassificationRequest) -> Classifications:
    """Classify texts in the shape of Hugging Face's text-classification task.

    `InferenceClient(model=<this URL>).text_classification(text)` works unchanged. The answer has no place for the error
    of a single text, so one invalid text is 422 and names its position.
    """
    card = request.app[PREDICTIONS].card
    check_model(card, path.model)
    _check_function(card, body.parameters.function_to_apply)
    predictions = await predict_all(request, body.inputs)
    return Classifications([_ranked(prediction, body.parameters.top_k) for prediction in predictions])


def _check_function(card: ModelCard, function: str | None) -> None:
    """Raise Problem 422 unless `function` is the one behind this model's scores."""
    if function not in (None, card.activation):
        message = f"Input should be '{card.activation}' or omitted: this model applies no other function"
        error = FieldError(location="body", field="parameters.function_to_apply", message=message)
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=[error])


def _ranked(prediction: Prediction, top_k: int | None) -> list[LabelScore]:
    best_first = sorted(prediction.scores.items(), key=lambda pair: pair[1], reverse=True)
    return [LabelScore(label=label, score=score) for label, score in best_first[:top_k]]
