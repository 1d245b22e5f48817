"""vLLM's classification API, which SGLang serves under `/v1` too."""

import time
from typing import Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from common.http.app import context
from common.http.openapi import EXAMPLE_ID, operation
from inference.api.common import PREDICTIONS, OneOrMoreTexts, check_model, predict_all, served_name

PATHS: Final = ("/classify", "/v1/classify")


class ClassifyRequest(BaseModel):
    """A text or a list of texts. Parameters that only concern a language model's prompt are ignored."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    input: OneOrMoreTexts
    use_activation: Literal[True] | None = None


class ClassifyData(BaseModel):
    """`probs` are in the order of the model's labels, as `GET /models` lists them."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0] = 0
    prompt_tokens_details: None = None


class ClassifyResponse(BaseModel):
    """One item of `data` per text, in order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ClassifyData]
    usage: Usage


def add_routes(app: web.Application) -> None:
    for path in PATHS:
        app.router.add_post(path, classify_texts)


@operation(
    body=ClassifyRequest,
    response=ClassifyResponse,
    errors=(404, 503, 504),
    tag="inference",
    examples=[
        ClassifyRequest(model="sluice-sentiment-minilm", input=["A wonderful film."]),
        ClassifyResponse(
            id=f"classify-{EXAMPLE_ID}",
            created=1_790_000_000,
            model="sluice-sentiment-minilm",
            data=[ClassifyData(index=0, label="POSITIVE", probs=[0.036236118, 0.963763882], num_classes=2)],
            usage=Usage(prompt_tokens=6, total_tokens=6),
        ),
    ],
)
async def classify_texts(request: web.Request, body: ClassifyRequest) -> ClassifyResponse:
    """Classify texts in the shape of vLLM's classification API.

    The answer has no place for the error of a single text, so one invalid text is 422 and names its position.
    """
    card = request.app[PREDICTIONS].card
    check_model(card, body.model or card.name)
    predictions = await predict_all(request, body.input)
    tokens = sum(each.tokens for each in predictions)
    return ClassifyResponse(
        id=f"classify-{context(request).request_id}",
        created=int(time.time()),
        model=served_name(card),
        data=[
            ClassifyData(index=index, label=each.label, probs=list(each.scores.values()), num_classes=len(each.scores))
            for index, each in enumerate(predictions)
        ],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )
