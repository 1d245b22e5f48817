"""Owns the routes of the Open Inference Protocol v2: one model, one input `text`, texts in and labels out.

`tensors` knows how requests and answers are written; errors leave as the protocol's `{"error": …}`.
"""

import json
from functools import partial
from importlib.metadata import version
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from common.http.openapi import operation
from common.http.problems import CONTENT_TYPE
from inference.api import open_inference_models, tensors
from inference.api.common import ANSWERING, READINESS, ModelPath, VersionPath, check_model, predictions, served_name
from inference.api.open_inference_models import Live, ModelMetadata, ModelReady, Ready, ServerMetadata, TensorMetadata
from inference.engines.base import ModelCard

_ROOT: Final = "/v2"
_MODELS: Final = {"/v2/models/{model}": ModelPath, "/v2/models/{model}/versions/{version}": VersionPath}
_about = partial(operation, tag="inference", validates=False)


def add_routes(app: web.Application) -> None:
    app.middlewares.insert(0, _shape_errors)
    app.router.add_get(_ROOT, server)
    app.router.add_get(f"{_ROOT}/health/live", live)
    app.router.add_get(f"{_ROOT}/health/ready", ready)
    for root, path in _MODELS.items():
        about = partial(_about, path=path)
        app.router.add_get(root, about(**open_inference_models.MODEL)(model))
        app.router.add_get(f"{root}/ready", about(**open_inference_models.MODEL_READY)(model_ready))
        app.router.add_post(f"{root}/infer", about(**open_inference_models.INFER)(infer))


@_about(**open_inference_models.SERVER)
async def server(_request: web.Request) -> ServerMetadata:
    """The server, in the Open Inference Protocol."""
    return ServerMetadata(name="sluice", version=version("sluice-inference"), extensions=["binary_tensor_data"])


@_about(**open_inference_models.LIVE)
async def live(_request: web.Request) -> Live:
    """Whether the server is alive, in the Open Inference Protocol."""
    return Live(live=True)


@_about(**open_inference_models.READY)
async def ready(request: web.Request) -> web.Response:
    """Whether the server can answer, in the Open Inference Protocol."""
    is_ready = await _is_ready(request)
    return _readiness(Ready(ready=is_ready))


async def model_ready(request: web.Request) -> web.Response:
    """Whether the model can answer, in the Open Inference Protocol."""
    card = _card(request)
    return _readiness(ModelReady(name=served_name(card), ready=await _is_ready(request)))


async def model(request: web.Request) -> ModelMetadata:
    """The model, its inputs and outputs, in the Open Inference Protocol."""
    card = _card(request)
    return ModelMetadata(
        name=served_name(card),
        versions=[card.revision],
        platform=f"sluice_{card.engine}",
        inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
        outputs=[
            TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="score", datatype="FP32", shape=[-1]),
            TensorMetadata(name="scores", datatype="FP32", shape=[-1, len(card.labels)]),
        ],
    )


async def infer(request: web.Request) -> web.Response:
    """Classify the texts of the input tensor, in the Open Inference Protocol.

    One that can't be scored fails the request: the protocol has no place for the error of a single text. The binary
    tensor data extension is understood in both directions.
    """
    card = _card(request)
    asked, texts = tensors.read(await request.read(), request.headers.get(tensors.JSON_LENGTH))
    found = await predictions(request, texts)
    outputs = [
        tensors.Output("label", [len(found)], [each.label for each in found]),
        tensors.Output("score", [len(found)], [each.score for each in found]),
        tensors.Output("scores", [len(found), len(card.labels)], [s for each in found for s in each.scores.values()]),
    ]
    head = {"model_name": served_name(card), "model_version": card.revision}
    return tensors.response(head, asked, outputs)


def _card(request: web.Request) -> ModelCard:
    """The served model, if it is the one that the path names. Raises Problem 404."""
    card = request.app[ANSWERING].card
    check_model(card, request.match_info["model"], request.match_info.get("version"))
    return card


async def _is_ready(request: web.Request) -> bool:
    """More than the pod's own readiness says: with a full journal it refuses, and tells when to come again."""
    state, _ = await request.app[READINESS].report()
    return state != "failed" and request.app[ANSWERING].can_record


def _readiness(answer: Ready) -> web.Response:
    status = 200 if answer.ready else 503
    return web.Response(status=status, body=answer.model_dump_json().encode(), content_type="application/json")


@web.middleware
async def _shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around the service's own error boundary: what that answers under /v2 is said again as the protocol wants it."""
    response = await handler(request)
    if (
        isinstance(response, web.Response)
        and response.content_type == CONTENT_TYPE
        and f"{request.path}/".startswith(f"{_ROOT}/")
        and isinstance(response.body, bytes)
    ):
        problem = json.loads(response.body)
        response.body = json.dumps({"error": problem.get("detail", problem["title"])}).encode()
        response.content_type = "application/json"
    return response
