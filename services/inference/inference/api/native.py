"""Owns the HTTP routes of Sluice's own protocol; knows neither batches nor journal."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from common.http.openapi import EXAMPLE_ID, operation
from inference.api.common import ANSWERING, MAX_CHARACTERS, MAX_TEXTS, UNSCORABLE, Text, request_metadata
from inference.batching.jobs import ScoringFailed
from inference.engines.base import ModelCard
from inference.prediction.predictor import Prediction


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictRequest(_Body):
    text: Annotated[Text, Field(examples=["A wonderful film."])]


class BatchRequest(_Body):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class ModelName(_Body):
    name: str
    revision: str


class Timing(_Body):
    """Milliseconds waiting and in the model (of a list: those of its slowest text), and in the service overall."""

    queue: float
    inference: float
    total: float


class Result(_Body):
    """`scores` holds one probability per label; `truncated` says that the text was longer than the model reads."""

    label: str
    score: float
    scores: dict[str, float]
    cached: bool
    truncated: bool


class PredictResponse(Result):
    model: ModelName
    request_id: str
    timing_ms: Timing


class TextError(_Body):
    title: str
    detail: str


class FailedResult(_Body):
    """This text alone could not be scored."""

    error: TextError


class BatchResponse(_Body):
    """One item per text, in order."""

    predictions: list[Result | FailedResult]
    model: ModelName
    request_id: str
    timing_ms: Timing


class Limits(_Body):
    max_tokens: Annotated[int, Field(description="Tokens the model reads; what is longer is truncated.")]
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


_FAILED: Final = FailedResult(error=TextError(title="Scoring failed", detail=UNSCORABLE))


def add_routes(app: web.Application) -> None:
    app.router.add_post("/predict", predict)
    app.router.add_post("/predict/batch", predict_batch)
    app.router.add_get("/models", models)


_ANSWER: Final = PredictResponse(
    label="POSITIVE",
    score=0.9637638819531743,
    scores={"NEGATIVE": 0.03623611804682561, "POSITIVE": 0.9637638819531743},
    cached=False,
    truncated=False,
    model=ModelName(name="sluice-sentiment-minilm", revision="9680a671e92c"),
    request_id=EXAMPLE_ID,
    timing_ms=Timing(queue=0.56, inference=3.764, total=8.505),
)
_ANSWERS: Final = BatchResponse(
    predictions=[Result.model_validate(_ANSWER.model_dump(include=set(Result.model_fields))), _FAILED],
    model=_ANSWER.model,
    request_id=EXAMPLE_ID,
    timing_ms=_ANSWER.timing_ms,
)
_SERVED: Final = ModelsResponse(
    models=[
        Model(
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
    ]
)


@operation(
    body=PredictRequest,
    response=PredictResponse,
    errors=(503, 504),
    tag="inference",
    examples=[PredictRequest(text="A wonderful film."), _ANSWER],
)
async def predict(request: web.Request, body: PredictRequest) -> PredictResponse:
    """Classify one text."""
    answering, asker = request.app[ANSWERING], request_metadata(request)
    [answer] = await answering.answer(asker, [body.text])
    if isinstance(answer, ScoringFailed):
        raise answer
    return PredictResponse(
        **_result(answer),
        model=_name(answering.card),
        request_id=asker.request_id,
        timing_ms=_timing([answer], answering.now() - asker.started_s),
    )


@operation(
    body=BatchRequest,
    response=BatchResponse,
    errors=(503, 504),
    tag="inference",
    examples=[BatchRequest(texts=["A wonderful film.", "Dreadful."]), _ANSWERS],
)
async def predict_batch(request: web.Request, body: BatchRequest) -> BatchResponse:
    """Classify up to 64 texts; a text that can't be scored fails alone."""
    answering, asker = request.app[ANSWERING], request_metadata(request)
    answers = await answering.answer(asker, body.texts)
    scored = [answer for answer in answers if isinstance(answer, Prediction)]
    return BatchResponse(
        predictions=[_FAILED if isinstance(a, ScoringFailed) else Result(**_result(a)) for a in answers],
        model=_name(answering.card),
        request_id=asker.request_id,
        timing_ms=_timing(scored, answering.now() - asker.started_s),
    )


@operation(response=ModelsResponse, tag="inference", examples=[_SERVED])
async def models(request: web.Request) -> ModelsResponse:
    """The model that answers: its labels, limits and known weaknesses."""
    card = request.app[ANSWERING].card
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


def _result(prediction: Prediction) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "score": prediction.score,
        "scores": prediction.scores,
        "cached": prediction.cached,
        "truncated": prediction.truncated,
    }


def _name(card: ModelCard) -> ModelName:
    return ModelName(name=card.name, revision=card.revision)


def _timing(predictions: Sequence[Prediction], total_s: float) -> Timing:
    return Timing(
        queue=_ms(max((p.queue_s for p in predictions), default=0.0)),
        inference=_ms(max((p.compute_s for p in predictions), default=0.0)),
        total=_ms(total_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
