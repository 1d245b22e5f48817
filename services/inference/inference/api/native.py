"""Sluice's own protocol: one text, a list of texts, and the card of the model."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from common.http.app import context
from common.http.openapi import EXAMPLE_ID, operation
from inference.api.common import (
    MAX_CHARACTERS,
    MAX_TEXTS,
    PREDICTIONS,
    SCORING_FAILED,
    Outcome,
    Text,
    TextError,
    UncheckedTexts,
    predict_all,
    predict_each,
)
from inference.prediction.predictor import Prediction


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictRequest(_Body):
    text: Annotated[Text, Field(examples=["A wonderful film."])]


class BatchRequest(_Body):
    texts: UncheckedTexts


class ModelName(_Body):
    name: str
    revision: str


class Timing(_Body):
    """Milliseconds in the queue and in the model (of a list: the longest of its texts), and in the whole service."""

    queue: float
    inference: float
    total: float


class Result(_Body):
    """`scores` holds one probability per label. `truncated`: the text was longer than the model reads."""

    label: str
    score: float
    scores: dict[str, float]
    cached: bool
    truncated: bool


class PredictResponse(Result):
    model: ModelName
    request_id: str
    timing_ms: Timing


class FailedResult(_Body):
    """This text alone has no prediction."""

    error: TextError


class BatchResponse(_Body):
    """One item per text, in order."""

    predictions: list[Result | FailedResult]
    model: ModelName
    request_id: str
    timing_ms: Timing


class Limits(_Body):
    max_tokens: Annotated[int, Field(description="Tokens that the model reads; longer texts are truncated.")]
    max_characters: int
    max_texts: int


class Model(_Body):
    name: str
    revision: str
    labels: list[str]
    engine: str
    device: str
    limits: Limits
    license: str
    training_data: list[str]
    known_weaknesses: list[str]


class ModelsResponse(_Body):
    models: list[Model]


EXAMPLE: Final = Result(
    label="POSITIVE",
    score=0.9637638819531743,
    scores={"NEGATIVE": 0.03623611804682561, "POSITIVE": 0.9637638819531743},
    cached=False,
    truncated=False,
)
_OTHERS: Final = {
    "model": ModelName(name="sluice-sentiment-minilm", revision="9680a671e92c"),
    "request_id": EXAMPLE_ID,
    "timing_ms": Timing(queue=0.56, inference=3.764, total=8.505),
}
_SERVED: Final = Model(
    name="sluice-sentiment-minilm",
    revision="9680a671e92c",
    labels=["NEGATIVE", "POSITIVE"],
    engine="onnx",
    device="cpu",
    limits=Limits(max_tokens=512, max_characters=MAX_CHARACTERS, max_texts=MAX_TEXTS),
    license="Apache-2.0",
    training_data=["SST-2 training sentences and phrases (67,000)"],
    known_weaknesses=["English only: other languages are scored, and the score means little."],
)


def add_routes(app: web.Application) -> None:
    app.router.add_post("/predict", predict)
    app.router.add_post("/predict/batch", predict_batch)
    app.router.add_get("/models", models)


@operation(
    body=PredictRequest,
    response=PredictResponse,
    errors=(503, 504),
    tag="inference",
    examples=[
        PredictRequest(text="A wonderful film."),
        PredictResponse.model_validate(EXAMPLE.model_dump() | _OTHERS),
    ],
)
async def predict(request: web.Request, body: PredictRequest) -> PredictResponse:
    """Classify one text."""
    started_s = request.app[PREDICTIONS].now()
    [prediction] = await predict_all(request, [body.text])
    return PredictResponse(
        **_fields(prediction),
        model=_model_name(request),
        request_id=context(request).request_id,
        timing_ms=_timing(request, [prediction], started_s),
    )


@operation(
    body=BatchRequest,
    response=BatchResponse,
    errors=(503, 504),
    tag="inference",
    examples=[
        BatchRequest(texts=["A wonderful film.", "Dreadful."]),
        BatchResponse.model_validate({"predictions": [EXAMPLE, FailedResult(error=SCORING_FAILED)], **_OTHERS}),
    ],
)
async def predict_batch(request: web.Request, body: BatchRequest) -> BatchResponse:
    """Classify up to 64 texts.

    A text that is blank, too long or cannot be scored has an error in its place; the others are answered.
    """
    started_s = request.app[PREDICTIONS].now()
    outcomes = await predict_each(request, body.texts)
    return BatchResponse(
        predictions=[result_of(outcome) for outcome in outcomes],
        model=_model_name(request),
        request_id=context(request).request_id,
        timing_ms=_timing(request, outcomes, started_s),
    )


@operation(response=ModelsResponse, tag="inference", examples=[ModelsResponse(models=[_SERVED])])
async def models(request: web.Request) -> ModelsResponse:
    """Describe the served model: its labels, limits and known weaknesses."""
    card = request.app[PREDICTIONS].card
    model = Model(
        name=card.name,
        revision=card.revision,
        labels=list(card.labels),
        engine=card.engine,
        device=card.device,
        limits=Limits(max_tokens=card.max_tokens, max_characters=MAX_CHARACTERS, max_texts=MAX_TEXTS),
        license=card.license,
        training_data=list(card.training_data),
        known_weaknesses=list(card.known_weaknesses),
    )
    return ModelsResponse(models=[model])


def result_of(outcome: Outcome) -> Result | FailedResult:
    if isinstance(outcome, TextError):
        return FailedResult(error=outcome)
    return Result(**_fields(outcome))


def _fields(prediction: Prediction) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in Result.model_fields}


def _model_name(request: web.Request) -> ModelName:
    card = request.app[PREDICTIONS].card
    return ModelName(name=card.name, revision=card.revision)


def _timing(request: web.Request, outcomes: Iterable[Outcome], started_s: float) -> Timing:
    predictions = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    return Timing(
        queue=_ms(max((each.queue_s for each in predictions), default=0.0)),
        inference=_ms(max((each.compute_s for each in predictions), default=0.0)),
        total=_ms(request.app[PREDICTIONS].now() - started_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
