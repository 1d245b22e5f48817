"""Owns the routes of the Open Inference Protocol v2: one model, one input `text`, texts in and labels out.

`tensors` knows how requests and answers are written; errors leave as the protocol's `{"error": …}`.
"""

import json
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from common.problems import CONTENT_TYPE
from inference import tensors
from inference.calls import ANSWERING, READINESS, check_model, predictions, served_name
from inference.engine import ModelCard

_ROOT: Final = "/v2"
_MODELS: Final = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


def add_routes(app: web.Application) -> None:
    """Its answers are described by the protocol's own specification, so they are not in ours."""
    app.middlewares.insert(0, _shape_errors)
    app.router.add_get(_ROOT, server)
    app.router.add_get(f"{_ROOT}/health/live", live)
    app.router.add_get(f"{_ROOT}/health/ready", ready)
    for path in _MODELS:
        app.router.add_get(path, model)
        app.router.add_get(f"{path}/ready", model_ready)
        app.router.add_post(f"{path}/infer", infer)


async def server(_request: web.Request) -> web.Response:
    return web.json_response(
        {"name": "sluice", "version": version("sluice-inference"), "extensions": ["binary_tensor_data"]}
    )


async def live(_request: web.Request) -> web.Response:
    return web.json_response({"live": True})


async def ready(request: web.Request) -> web.Response:
    return await _readiness(request, {})


async def model_ready(request: web.Request) -> web.Response:
    return await _readiness(request, {"name": served_name(_card(request))})


async def model(request: web.Request) -> web.Response:
    card = _card(request)
    return web.json_response(
        {
            "name": served_name(card),
            "versions": [card.revision],
            "platform": f"sluice_{card.engine}",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, len(card.labels)]},
            ],
        }
    )


async def infer(request: web.Request) -> web.Response:
    """Classify the texts of the input tensor; one that can't be scored fails the request: the protocol has no place
    for the error of a single text."""
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


async def _readiness(request: web.Request, facts: dict[str, Any]) -> web.Response:
    state, _ = await request.app[READINESS].report()
    is_ready = state != "failed"
    return web.json_response({**facts, "ready": is_ready}, status=200 if is_ready else 503)


@web.middleware
async def _shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around the service's own error boundary: what that answers under /v2 is said again as the protocol wants it."""
    response = await handler(request)
    if (
        isinstance(response, web.Response)
        and response.content_type == CONTENT_TYPE
        and request.path.startswith(f"{_ROOT}/")
        and isinstance(response.body, bytes)
    ):
        problem = json.loads(response.body)
        response.body = json.dumps({"error": problem.get("detail", problem["title"])}).encode()
        response.content_type = "application/json"
    return response
