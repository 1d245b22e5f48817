"""Errors in the shapes that clients of other protocols show, made from the service's problem documents."""

import json
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from common.http.problems import CONTENT_TYPE

_OPENAI: Final = frozenset({"/v1/moderations", "/classify", "/v1/classify"})


def add_protocol_errors(app: web.Application) -> None:
    app.middlewares.insert(0, _rewrite)


@web.middleware
async def _rewrite(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if not isinstance(response, web.Response) or response.content_type != CONTENT_TYPE:
        return response
    assert isinstance(response.body, bytes)
    if f"{request.path}/".startswith("/v2/"):
        problem = json.loads(response.body)
        response.body = json.dumps({"error": problem.get("detail", problem["title"])}).encode()
        response.content_type = "application/json"
    elif request.path in _OPENAI:
        problem = json.loads(response.body)
        response.body = json.dumps(problem | {"error": _openai_error(problem)}).encode()
    return response


def _openai_error(problem: dict[str, Any]) -> dict[str, str | None]:
    """Return OpenAI's `error`; the clients show only its message."""
    fields = "; ".join(f"{each['field']}: {each['message']}" for each in problem.get("errors", ()))
    kind = "invalid_request_error" if problem["status"] < 500 else "server_error"
    message = fields or problem.get("detail") or problem["title"]
    return {"message": message, "type": kind, "param": None, "code": None}
