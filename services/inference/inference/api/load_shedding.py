"""Refusal of single texts before the app sees them, while the queue is nearly full.

In a flood most of the event loop's time goes into refusals, and one from here costs half of one from the app.
Anything unusual goes to the app: other routes, large, compressed or invalid bodies, texts whose result is known.
"""

from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from pydantic import ValidationError

from common.http.app import AppConfig
from common.http.context import REQUEST_ID, read_context
from common.http.server import Handler
from inference.api.common import ERRORS, PREDICTIONS, READINESS
from inference.api.native import PredictRequest
from inference.batching.jobs import Overloaded

PATH: Final = "/predict"
_SMALL_BYTES: Final = 64 << 10


def gate(app: web.Application, config: AppConfig, handler: Handler) -> Handler:
    """Return `handler` with early refusals, which look and count like those of `app`."""

    async def refuse_early(request: web.BaseRequest) -> web.StreamResponse:
        service = app[PREDICTIONS]
        if not service.near_capacity or app[READINESS].draining or not _is_usual(request):
            return await handler(request)
        started_s = service.now()
        try:
            text = PredictRequest.model_validate_json(await request.read(), strict=True).text
        except ValidationError:
            return await handler(request)
        ctx = read_context(
            request.headers, started_s, default_s=config.default_timeout_s, maximum_s=config.maximum_timeout_s
        )
        retry_after_s = service.refused_now(PATH, text, ctx.deadline_s)
        if retry_after_s is None:
            return await handler(request)
        config.metrics.observe(PATH, "POST", 503, service.now() - started_s)
        response = ERRORS[Overloaded](Overloaded(retry_after_s)).response(ctx.request_id)
        response.headers[REQUEST_ID] = ctx.request_id
        return response

    return refuse_early


def _is_usual(request: web.BaseRequest) -> bool:
    """Return whether the body can be read here without an error, on a connection that is kept."""
    length = request.content_length
    return (
        request.raw_path == PATH
        and request.method == "POST"
        and length is not None
        and length <= _SMALL_BYTES
        and request.content_type == "application/json"
        and hdrs.CONTENT_ENCODING not in request.headers
        and hdrs.EXPECT not in request.headers
        and request.keep_alive
        and request.version == HttpVersion11
    )
