"""Owns the shape in which Hugging Face's clients ask for a text classification and read it; knows no other task."""

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from common.http.openapi import operation
from common.http.problems import FieldError, Problem
from inference.api.common import ANSWERING, MAX_TEXTS, ModelPath, Text, check_model, predictions
from inference.engines.base import ModelCard
from inference.prediction.predictor import Prediction


def _as_list(inputs: Any) -> Any:
    return [inputs] if isinstance(inputs, str) else inputs


Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Inputs = Annotated[Texts, BeforeValidator(_as_list, json_schema_input_type=Text | Texts)]


class ClassificationParameters(BaseModel):
    """`top_k` leaves out all but the best labels; `function_to_apply` can only be the model's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid"] | None = None


class ClassificationRequest(BaseModel):
    """A text or a list of them; fields that older clients add, such as `options`, mean nothing here."""

    model_config = ConfigDict(frozen=True)

    inputs: Inputs
    parameters: ClassificationParameters = ClassificationParameters()


class LabelScore(BaseModel):
    label: str
    score: float


class Classifications(RootModel[list[list[LabelScore]]]):
    """One list per text, a single text's too, as the clients read it; the best label first."""


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

    `InferenceClient(model=<this URL>).text_classification(text)` works unchanged.
    """
    card = request.app[ANSWERING].card
    check_model(card, path.model)
    _check_function(card, body.parameters.function_to_apply)
    return Classifications(
        [_ranked(prediction, body.parameters.top_k) for prediction in await predictions(request, body.inputs)]
    )


def _check_function(card: ModelCard, asked: str | None) -> None:
    """Raises Problem 422 unless `asked` is what this model's scores come from."""
    if asked not in (None, card.activation):
        message = f"Input should be '{card.activation}', or left out: this model applies no other"
        error = FieldError(location="body", field="parameters.function_to_apply", message=message)
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=[error])


def _ranked(prediction: Prediction, top_k: int | None) -> list[LabelScore]:
    best_first = sorted(prediction.scores.items(), key=lambda pair: pair[1], reverse=True)
    return [LabelScore(label=label, score=score) for label, score in best_first[:top_k]]
