"""The Open Inference Protocol v2: one model with one input `text` and the outputs `label`, `score` and `scores`.

`tensors` reads requests and writes answers.
"""

from functools import partial
from importlib.metadata import version
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from common.http.openapi import operation
from inference.api import tensors
from inference.api.common import PREDICTIONS, ModelPath, VersionPath, check_model, is_ready, predict_all, served_name
from inference.api.tensors import InferRequest, Input
from inference.engines.base import ModelCard


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerMetadata(_Part):
    name: str
    version: str
    extensions: list[str]


class Live(_Part):
    live: bool


class Ready(_Part):
    ready: bool


class ModelReady(Ready):
    name: str


class TensorMetadata(_Part):
    """A size of -1 is any size."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]


class ModelMetadata(_Part):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(_Part):
    """`data` is in row-major order."""

    name: Literal["label", "score", "scores"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float]


class InferResponse(_Part):
    """The requested outputs, by default all. `id` is the request's; it is absent if the request had none."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ProtocolError(_Part):
    """An error in this protocol's shape."""

    error: str


_ROOT: Final = "/v2"
_MODELS: Final[dict[str, type[BaseModel]]] = {
    "/v2/models/{model}": ModelPath,
    "/v2/models/{model}/versions/{version}": VersionPath,
}
_NAME: Final = "sluice-sentiment-minilm"
_VERSION: Final = "9680a671e92c"
_CRASHED: Final = {500: ProtocolError(error="The service failed to answer; quote the request id.")}
_MISSING: Final = {404: ProtocolError(error="No such model, or not in that version; GET /models lists what is served.")}
_describe = partial(operation, tag="inference", validates=False)


def add_routes(app: web.Application) -> None:
    app.router.add_get(_ROOT, server)
    app.router.add_get(f"{_ROOT}/health/live", live)
    app.router.add_get(f"{_ROOT}/health/ready", ready)
    for root, path in _MODELS.items():
        app.router.add_get(root, _describe(path=path, **_METADATA)(model))
        app.router.add_get(f"{root}/ready", _describe(path=path, **_MODEL_READY)(model_ready))
        app.router.add_post(f"{root}/infer", _describe(path=path, **_INFER)(infer))


@_describe(
    response=ServerMetadata,
    examples=[ServerMetadata(name="sluice", version=version("sluice-inference"), extensions=["binary_tensor_data"])],
)
async def server(_request: web.Request) -> ServerMetadata:
    """Describe the server, in the Open Inference Protocol."""
    return ServerMetadata(name="sluice", version=version("sluice-inference"), extensions=["binary_tensor_data"])


@_describe(response=Live, responses=_CRASHED, examples=[Live(live=True)])
async def live(_request: web.Request) -> Live:
    """Report that the server is alive, in the Open Inference Protocol."""
    return Live(live=True)


@_describe(response=Ready, responses={503: Ready(ready=False), **_CRASHED}, examples=[Ready(ready=True)])
async def ready(request: web.Request) -> web.Response:
    """Report whether the server can answer, in the Open Inference Protocol."""
    return _readiness(Ready(ready=await is_ready(request)))


_MODEL_READY: Final[dict[str, Any]] = {
    "response": ModelReady,
    "responses": {503: ModelReady(name=_NAME, ready=False), **_MISSING, **_CRASHED},
    "examples": [ModelReady(name=_NAME, ready=True)],
}


async def model_ready(request: web.Request) -> web.Response:
    """Report whether the model can answer, in the Open Inference Protocol."""
    card = _card(request)
    return _readiness(ModelReady(name=served_name(card), ready=await is_ready(request)))


def _metadata(name: str, revision: str, engine: str, labels: int) -> ModelMetadata:
    return ModelMetadata(
        name=name,
        versions=[revision],
        platform=f"sluice_{engine}",
        inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
        outputs=[
            TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="score", datatype="FP32", shape=[-1]),
            TensorMetadata(name="scores", datatype="FP32", shape=[-1, labels]),
        ],
    )


_METADATA: Final[dict[str, Any]] = {
    "response": ModelMetadata,
    "responses": _MISSING | _CRASHED,
    "examples": [_metadata(_NAME, _VERSION, "onnx", 2)],
}


async def model(request: web.Request) -> ModelMetadata:
    """Describe the model with its inputs and outputs, in the Open Inference Protocol."""
    card = _card(request)
    return _metadata(served_name(card), card.revision, card.engine, len(card.labels))


_INFER: Final[dict[str, Any]] = {
    "body": InferRequest,
    "response": InferResponse,
    "media": {"application/octet-stream": "the answer's JSON, then the tensors' bytes"},
    "responses": {
        400: ProtocolError(error="inputs.0.data.1: The text is blank."),
        413: ProtocolError(error="The body is larger than this service accepts."),
        503: ProtocolError(error="More texts are waiting than can be scored in time."),
        504: ProtocolError(error="The text could not be scored before the request's deadline."),
        **_MISSING,
        **_CRASHED,
    },
    "examples": [
        InferRequest(id="7", inputs=[Input(name="text", datatype="BYTES", shape=[1], data=["A wonderful film."])]),
        InferResponse(
            model_name=_NAME,
            model_version=_VERSION,
            id="7",
            outputs=[
                OutputTensor(name="label", datatype="BYTES", shape=[1], data=["POSITIVE"]),
                OutputTensor(name="score", datatype="FP32", shape=[1], data=[0.9637638819531743]),
                OutputTensor(name="scores", datatype="FP32", shape=[1, 2], data=[0.036236118, 0.963763882]),
            ],
        ),
    ],
}


async def infer(request: web.Request) -> web.Response:
    """Classify the texts of the input tensor, in the Open Inference Protocol, with its binary tensor data extension.

    A tensor has no place for the error of a single text, so one invalid text is 400 and names its position.
    """
    card = _card(request)
    asked, texts = tensors.read(await request.read(), request.headers.get(tensors.JSON_LENGTH))
    found = await predict_all(request, texts)
    outputs = [
        tensors.Output("label", [len(found)], [each.label for each in found]),
        tensors.Output("score", [len(found)], [each.score for each in found]),
        tensors.Output("scores", [len(found), len(card.labels)], [s for each in found for s in each.scores.values()]),
    ]
    head = {"model_name": served_name(card), "model_version": card.revision}
    return tensors.response(head, asked, outputs)


def _card(request: web.Request) -> ModelCard:
    """Return the served model's card. Raises Problem 404 if the path names another model."""
    card = request.app[PREDICTIONS].card
    check_model(card, request.match_info["model"], request.match_info.get("version"))
    return card


def _readiness(answer: Ready) -> web.Response:
    status = 200 if answer.ready else 503
    return web.Response(status=status, body=answer.model_dump_json().encode(), content_type="application/json")
