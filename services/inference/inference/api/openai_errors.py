"""Errors for clients of OpenAI and vLLM, which show only the message in the member `error`."""

import json
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from common.http.problems import CONTENT_TYPE

_PATHS: Final = frozenset({"/v1/moderations", "/classify", "/v1/classify"})


def add_openai_errors(app: web.Application) -> None:
    app.middlewares.insert(0, _add_error)


@web.middleware
async def _add_error(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add OpenAI's `error` to the problem documents of these routes."""
    response = await handler(request)
    if (
        request.path in _PATHS
        and isinstance(response, web.Response)
        and response.content_type == CONTENT_TYPE
        and isinstance(response.body, bytes)
    ):
        problem = json.loads(response.body)
        kind = "invalid_request_error" if response.status < 500 else "server_error"
        error = {"message": _message(problem), "type": kind, "param": None, "code": None}
        response.body = json.dumps(problem | {"error": error}).encode()
    return response


def _message(problem: dict[str, Any]) -> str:
    fields = "; ".join(f"{each['field']}: {each['message']}" for each in problem.get("errors", ()))
    return fields or problem.get("detail") or problem["title"]
