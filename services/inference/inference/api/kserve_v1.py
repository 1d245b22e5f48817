"""KServe's V1 protocol. Vertex AI's custom containers use the same bodies for predictions.

`GET /v1/models` belongs to KServe and to OpenAI-compatible servers. Its answers have the members of both.
"""

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from common.http.openapi import operation
from common.http.problems import unavailable
from inference.api.common import (
    PREDICTIONS,
    SCORING_FAILED,
    ModelPath,
    UncheckedTexts,
    check_model,
    is_ready,
    predict_each,
    served_name,
)
from inference.api.native import EXAMPLE, FailedResult, Result, result_of

_RETRY_S: Final = 1.0
_NAME: Final = "sluice-sentiment-minilm"


class InstancesRequest(BaseModel):
    """Other fields, such as Vertex AI's `parameters`, are ignored."""

    model_config = ConfigDict(frozen=True)

    instances: UncheckedTexts


class PredictionsResponse(BaseModel):
    """One item per instance, in order."""

    predictions: list[Result | FailedResult]


class ModelEntry(BaseModel):
    """`id`, `object`, `created` and `owned_by` are OpenAI's; the creation time is not known."""

    id: str
    object: Literal["model"] = "model"
    created: Literal[0] = 0
    owned_by: Literal["sluice"] = "sluice"


class ModelState(ModelEntry):
    name: Annotated[str, Field(description="KServe's name of the model.")]
    ready: Literal[True] = True


class ModelList(BaseModel):
    """`models` is KServe's list; `object` and `data` are OpenAI's."""

    models: list[str]
    object: Literal["list"] = "list"
    data: list[ModelEntry]


def add_routes(app: web.Application) -> None:
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/v1/models/{model}", model_state)
    app.router.add_post("/v1/models/{model}:predict", predict_instances)


@operation(response=ModelList, tag="inference", examples=[ModelList(models=[_NAME], data=[ModelEntry(id=_NAME)])])
async def list_models(request: web.Request) -> ModelList:
    """List the served model, for clients of KServe's V1 protocol and of OpenAI-compatible servers."""
    name = served_name(request.app[PREDICTIONS].card)
    return ModelList(models=[name], data=[ModelEntry(id=name)])


@operation(
    path=ModelPath,
    response=ModelState,
    errors=(404, 503),
    tag="inference",
    examples=[ModelState(id=_NAME, name=_NAME)],
)
async def model_state(request: web.Request, path: ModelPath) -> ModelState:
    """Report that the model can answer; 503 while it cannot."""
    check_model(request.app[PREDICTIONS].card, path.model)
    if not await is_ready(request):
        raise unavailable("The model cannot answer right now.", _RETRY_S)
    return ModelState(id=path.model, name=path.model)


@operation(
    path=ModelPath,
    body=InstancesRequest,
    response=PredictionsResponse,
    errors=(404, 503, 504),
    tag="inference",
    examples=[
        InstancesRequest(instances=["A wonderful film.", "Dreadful."]),
        PredictionsResponse(predictions=[EXAMPLE, FailedResult(error=SCORING_FAILED)]),
    ],
)
async def predict_instances(request: web.Request, path: ModelPath, body: InstancesRequest) -> PredictionsResponse:
    """Classify texts in the shape of KServe's V1 protocol and of Vertex AI.

    A text that is blank, too long or cannot be scored has an error in its place; the others are answered.
    """
    check_model(request.app[PREDICTIONS].card, path.model)
    outcomes = await predict_each(request, body.instances)
    return PredictionsResponse(predictions=[result_of(outcome) for outcome in outcomes])
