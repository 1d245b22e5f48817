"""Owns the refusal of single texts at the outermost door while many wait: nothing is made for what is turned away.

A refusal that goes the whole way costs half as much again, and in a flood refusing is most of what the event loop
does. Whatever is unusual goes the whole way: other routes, large, packed or invalid bodies, texts whose answer is
known.
"""

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from pydantic import ValidationError

from common.requests import read_context
from common.web import CONTEXT, Door
from inference.answering import Answering
from inference.api import PredictRequest
from inference.calls import ANSWERING, ERRORS
from inference.jobs import Overloaded

PATH: Final = "/predict"
_SMALL_BYTES: Final = 64 << 10


def gate(door: Door) -> Middleware:
    """A middleware to put around the error boundary of `door`; its refusals look and count like those from within."""

    @web.middleware
    async def refuse_early(request: web.Request, handler: Handler) -> web.StreamResponse:
        answering = request.app[ANSWERING]
        if not answering.is_pressed or not _is_usual(request):
            return await handler(request)
        started_s = answering.now()
        ctx = read_context(
            request.headers, started_s, default_s=door.default_timeout_s, maximum_s=door.maximum_timeout_s
        )
        refused = _refused(answering, await request.read(), ctx.deadline_s)
        if refused is None:
            return await handler(request)
        response = ERRORS[Overloaded](refused).response(ctx.request_id)
        request[CONTEXT] = ctx  # the answer's X-Request-ID
        door.metrics.observe(PATH, "POST", response.status, answering.now() - started_s)
        return response

    return refuse_early


def _is_usual(request: web.Request) -> bool:
    """Its body can be read here without an error, for those belong inside the error boundary."""
    length = request.content_length
    return (
        request.path == PATH
        and request.method == "POST"
        and length is not None
        and length <= _SMALL_BYTES
        and request.content_type == "application/json"
        and hdrs.CONTENT_ENCODING not in request.headers
    )


def _refused(answering: Answering, body: bytes, deadline_s: float) -> Overloaded | None:
    try:
        asked = PredictRequest.model_validate_json(body, strict=True)
    except ValidationError:
        return None  # the whole way says what is wrong with it
    return answering.refused_now(PATH, asked.text, deadline_s)
