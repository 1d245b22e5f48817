"""OpenAPI 3.1 out of pydantic models, and the decorator that validates requests by the same models."""

import functools
import inspect
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from common.problems import CONTENT_TYPE, FieldError, Problem, ProblemDocument, invalid

Model = type[BaseModel]
Handler = Callable[..., Awaitable[web.StreamResponse | BaseModel]]

_REF = "#/components/schemas/{model}"
_STANDARD_ERRORS = {
    400: "Malformed request",
    401: "An admin token is required",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    412: "The document changed since it was read",
    413: "Body too large",
    415: "Not JSON",
    422: "Invalid request; `errors` names each field",
    428: "If-Match is required",
    429: "Over the limit; see Retry-After",
    500: "The service failed to answer",
    502: "An upstream broke",
    503: "Full, or a store is down; see Retry-After",
    504: "Not done before the deadline",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What the specification says about one handler."""

    path: Model | None
    query: Model | None
    body: Model | None
    response: Model | None
    status: int
    errors: tuple[int, ...]
    tag: str
    summary: str
    description: str
    media: tuple[str, ...]


def operation(
    *,
    path: Model | None = None,
    query: Model | None = None,
    body: Model | None = None,
    response: Model | None = None,
    status: int = 200,
    errors: Sequence[int] = (),
    tag: str = "",
    media: Sequence[str] = ("application/json",),
) -> Callable[[Handler], Callable[[web.Request], Awaitable[web.StreamResponse]]]:
    """Validate path, query and JSON body into keyword arguments `path`, `query`, `body`; serialise the returned model.

    The handler's docstring is its summary (first line) and description. Raises Problem 415 for a body that is not
    `application/json`, 400 for one that is not JSON, and 422 naming every field that is wrong.
    """

    def decorate(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        @functools.wraps(handler)
        async def validated(request: web.Request) -> web.StreamResponse:
            result = await handler(request, **await _arguments(request, path, query, body))
            if isinstance(result, web.StreamResponse):
                return result
            return web.Response(status=status, body=result.model_dump_json().encode(), content_type="application/json")

        summary, _, description = (inspect.getdoc(handler) or handler.__name__).partition("\n")
        validated.operation = Operation(  # type: ignore[attr-defined]  # functions take attributes; mypy has no type for it
            path,
            query,
            body,
            response,
            status,
            tuple(errors),
            tag,
            summary,
            description.strip(),
            tuple(media),
        )
        return validated

    return decorate


async def _arguments(
    request: web.Request, path: Model | None, query: Model | None, body: Model | None
) -> dict[str, BaseModel]:
    arguments: dict[str, BaseModel] = {}
    errors: list[FieldError] = []
    places: list[tuple[Literal["path", "query"], Model | None, Callable[[], dict[str, str]]]] = [
        ("path", path, lambda: dict(request.match_info)),
        ("query", query, lambda: dict(request.query)),
    ]
    for name, model, read in places:
        if model is not None:
            try:
                arguments[name] = model.model_validate(read())
            except ValidationError as error:
                errors += invalid(error, name)
    if body is not None:
        try:
            arguments["body"] = body.model_validate_json(await _json_bytes(request), strict=True)
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "json_invalid":
                raise Problem(400, "The body is not valid JSON.") from None
            errors += invalid(error, "body")
    if errors:
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=errors)
    return arguments


async def _json_bytes(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise Problem(415, "Send application/json.")
    return await request.read()


def specification(app: web.Application, *, title: str, version: str, description: str = "") -> dict[str, Any]:
    """The OpenAPI 3.1 document of every route in `app` whose handler carries an Operation."""
    routes = [
        (route, route.handler.operation)
        for route in app.router.routes()
        if hasattr(route.handler, "operation") and route.method != "HEAD"
    ]
    schemas = _Schemas([operation for _, operation in routes])
    paths: dict[str, dict[str, Any]] = {}
    names: Counter[str] = Counter()
    for route, op in routes:
        name = route.handler.__name__
        names[name] += 1
        if route.resource is not None:
            item = paths.setdefault(route.resource.canonical, {})
            unique = name if names[name] == 1 else f"{name}_{names[name]}"  # one handler may serve several routes
            item[route.method.lower()] = _describe(unique, op, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": schemas.used_in(paths)},
    }


class _Schemas:
    """JSON Schemas of all models at once, so that shared ones are defined once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        inputs = {m for o in operations for m in (o.path, o.query, o.body) if m is not None}
        outputs = {o.response for o in operations if o.response is not None} | {ProblemDocument}
        pairs: list[tuple[Model, Literal["validation", "serialization"]]] = [
            *((m, "validation") for m in sorted(inputs, key=str)),
            *((m, "serialization") for m in sorted(outputs, key=str)),
        ]
        self._named, top = models_json_schema(pairs, ref_template=_REF)
        self._all: dict[str, Any] = top.get("$defs", {})

    def input(self, model: Model) -> dict[str, Any]:
        return self._named[model, "validation"]

    def output(self, model: Model) -> dict[str, Any]:
        return self._named[model, "serialization"]

    def parameters(self, model: Model, where: str) -> list[dict[str, Any]]:
        schema = self._all[self.input(model)["$ref"].rsplit("/", 1)[1]]
        required = schema.get("required", ())
        return [
            {"name": name, "in": where, "required": where == "path" or name in required, "schema": value}
            for name, value in schema["properties"].items()
        ]

    def used_in(self, paths: dict[str, Any]) -> dict[str, Any]:
        """The schemas reachable from `paths`; those that only listed parameters are left out."""
        used: dict[str, Any] = {}
        pending = [paths]
        while pending:
            for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(pending.pop())):
                if name not in used:
                    used[name] = self._all[name]
                    pending.append(used[name])
        return used


def _describe(name: str, op: Operation, schemas: _Schemas) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    if op.response is not None:
        success["content"] = {media: {"schema": schemas.output(op.response)} for media in op.media}
    item: dict[str, Any] = {
        "operationId": name,
        "summary": op.summary,
        "responses": {str(op.status): success},
    }
    if op.description:
        item["description"] = op.description
    if op.tag:
        item["tags"] = [op.tag]
    parameters = [
        parameter
        for where, model in (("path", op.path), ("query", op.query))
        if model is not None
        for parameter in schemas.parameters(model, where)
    ]
    if parameters:
        item["parameters"] = parameters
    codes = set(op.errors)
    if op.body is not None:
        content = {"application/json": {"schema": schemas.input(op.body)}}
        item["requestBody"] = {"required": True, "content": content}
        codes |= {400, 413, 415}
    if op.body is not None or parameters:
        codes.add(422)
    problem = {CONTENT_TYPE: {"schema": schemas.output(ProblemDocument)}}
    for code in sorted(codes):
        item["responses"][str(code)] = {"description": _STANDARD_ERRORS[code], "content": problem}
    return item


def add_specification(app: web.Application, *, title: str, version: str, description: str = "") -> None:
    """Serve `GET /openapi.json` for the routes added so far."""
    document = json.dumps(specification(app, title=title, version=version, description=description)).encode()

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    app.router.add_get("/openapi.json", openapi)
