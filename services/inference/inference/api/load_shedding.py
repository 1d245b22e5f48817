"""Owns the refusal of single texts before the app sees them while many wait: nothing is made for what is turned away.

In a flood refusing is most of what the event loop does, and a refusal that goes the whole way costs it three times as
much. Whatever is unusual goes the whole way: other routes, large, packed or invalid bodies, texts whose answer is
known.
"""

import math
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from pydantic import ValidationError

from common.http.app import AppConfig
from common.http.context import REQUEST_ID, RequestContext, read_context
from common.http.server import Handler
from inference.api.common import ERRORS, PREDICTIONS, READINESS
from inference.api.native import PredictRequest
from inference.batching.jobs import Overloaded
from inference.prediction.service import PredictionService

PATH: Final = "/predict"
_SMALL_BYTES: Final = 64 << 10
_ID: Final = "@id@"  # stands in a rendered document for the id of a request


def gate(app: web.Application, config: AppConfig, handler: Handler) -> Handler:
    """`handler` with refusals before it that look and count like those of `app`, whose `door` it is."""

    async def refuse_early(request: web.BaseRequest) -> web.StreamResponse:
        answering = app[PREDICTIONS]
        if not answering.near_capacity or app[READINESS].draining or not _is_usual(request):
            return await handler(request)
        started_s = answering.now()
        ctx = read_context(
            request.headers, started_s, default_s=config.default_timeout_s, maximum_s=config.maximum_timeout_s
        )
        retry_after_s = _refused(answering, await request.read(), ctx)
        if retry_after_s is None:
            return await handler(request)
        config.metrics.observe(PATH, "POST", 503, answering.now() - started_s)
        return _Refusal(math.ceil(retry_after_s), ctx.request_id)

    return refuse_early


def _is_usual(request: web.BaseRequest) -> bool:
    """It can be read here without an error and answered with the connection kept."""
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


def _refused(answering: PredictionService, body: bytes, ctx: RequestContext) -> float | None:
    try:
        asked = PredictRequest.model_validate_json(body, strict=True)
    except ValidationError:
        return None  # the whole way says what is wrong with it
    return answering.refused_now(PATH, asked.text, ctx.deadline_s)


class _Refusal(web.StreamResponse):
    """The problem document that the app would answer with, sent as bytes of which only the numbers are new."""

    def __init__(self, retry_after_s: int, request_id: str) -> None:
        super().__init__(status=503)
        self._bytes = _rendered(retry_after_s, request_id)

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        transport.write(self._bytes)
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """All was written at once."""


def _rendered(retry_after_s: int, request_id: str) -> bytes:
    head, document = _template(retry_after_s)
    body = document.replace(_ID, request_id)
    return f"{head}{REQUEST_ID}: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@lru_cache(maxsize=256)
def _template(retry_after_s: int) -> tuple[str, str]:
    """Status line and headers but the last two, and the document, which is ASCII as an id is."""
    response = ERRORS[Overloaded](Overloaded(retry_after_s)).response(_ID)
    headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items() if name != hdrs.CONTENT_LENGTH)
    assert isinstance(response.body, bytes)
    return f"HTTP/1.1 503 {response.reason}\r\n{headers}", response.body.decode("ascii")
