"""OpenAPI 3.1 out of the operations of an app and their pydantic models: one document per service."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from common.http.context import REQUEST_ID
from common.http.openapi import Header, Model, Operation
from common.http.problems import CONTENT_TYPE, FieldError, ProblemDocument

Json = dict[str, Any]

JSON: Final = "application/json"
EXAMPLE_ID: Final = "01a20bb1-f56a-74eb-ab6a-7aee04ea1360"

_SCHEMAS: Final = "#/components/schemas/"
_PROBLEMS: Final = {
    400: "The request is malformed.",
    401: "An admin token is required.",
    403: "Not allowed from here.",
    404: "Not found.",
    408: "The request did not arrive in time.",
    409: "It conflicts with what is there.",
    412: "The document changed since it was read.",
    413: "The body is larger than this service takes.",
    414: "The request target is too long.",
    415: "Send application/json.",
    417: "The only expectation that can be met is 100-continue.",
    422: "The request is well-formed but not valid.",
    428: "Send If-Match with the ETag that you read.",
    429: "Over a limit; try again after Retry-After.",
    431: "The head of the request is too large.",
    500: "The service failed to answer; quote the request id.",
    501: "The method or the transfer encoding is not supported.",
    502: "A service behind this one cannot be reached or broke off.",
    503: "Full, or a store is down; try again after Retry-After.",
    504: "Not done before the deadline.",
    505: "Send HTTP/1.1.",
}
_HEADERS: Final[Json] = {
    REQUEST_ID: {
        "description": "The request's id: the client's own if that was well-formed, else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
        "example": EXAMPLE_ID,
    },
    "Retry-After": {
        "description": "Seconds until asking again makes sense.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 12,
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="sluice"',
    },
    "RateLimit-Policy": {
        "description": "The limit that counts this request: `q` units in any `w` seconds.",
        "schema": {"type": "string"},
        "example": '"predict";q=60;w=60',
    },
    "RateLimit": {
        "description": "Units that are left (`r`), and seconds until the next comes free (`t`).",
        "schema": {"type": "string"},
        "example": '"predict";r=59;t=60',
    },
    "X-RateLimit-Limit": {
        "description": "The same limit for older clients: `q` of RateLimit-Policy.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 60,
    },
    "X-RateLimit-Remaining": {
        "description": "`r` of RateLimit.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 59,
    },
    "X-RateLimit-Reset": {
        "description": "`t` of RateLimit: seconds from now, no time of day.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 60,
    },
}
LIMITS: Final = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_HEADERS_OF: Final[dict[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After", *LIMITS),
    503: ("Retry-After",),
}


def add_specification(app: web.Application, *, title: str, version: str, description: str = "") -> None:
    """Serve `GET /openapi.json` for the routes added so far."""
    document = json.dumps(specification(app, title=title, version=version, description=description)).encode()

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type=JSON)

    app.router.add_get("/openapi.json", openapi)


def specification(app: web.Application, *, title: str, version: str, description: str = "") -> Json:
    """The OpenAPI 3.1 document of every route in `app` whose handler carries an Operation."""
    routes = [
        (route, route.handler.operation)
        for route in app.router.routes()
        if hasattr(route.handler, "operation") and route.method != "HEAD"
    ]
    schemas = _Schemas([operation for _, operation in routes])
    paths: dict[str, Json] = {}
    names: Counter[str] = Counter()
    codes: set[int] = set()
    for route, op in routes:
        name = route.handler.__name__
        names[name] += 1
        if route.resource is not None:
            item = paths.setdefault(route.resource.canonical, {})
            unique = name if names[name] == 1 else f"{name}_{names[name]}"  # one handler may serve several routes
            item[route.method.lower()] = _describe(unique, op, schemas)
            codes |= _problems_of(op)
    parts = components(codes)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": schemas.used_in(paths, parts), **parts},
    }


def components(problems: Iterable[int]) -> Json:
    """The shared answers and headers of a document whose operations refer to these problems."""
    responses = {f"Problem{code}": _problem(code) for code in sorted(problems)}
    return {"responses": responses, "headers": _HEADERS}


def problem(code: int) -> Json:
    """A reference to one of `components`."""
    return {"$ref": f"#/components/responses/Problem{code}"}


def header(name: str) -> Json:
    """A reference to one of `components`."""
    return {"$ref": f"#/components/headers/{name}"}


def _problem(code: int) -> Json:
    detail, phrase = _PROBLEMS[code], HTTPStatus(code).phrase
    document = ProblemDocument(title=phrase, status=code, detail=detail, request_id=EXAMPLE_ID)
    if code == 422:
        wrong = FieldError(location="body", field="text", message="String should have at least 1 character")
        document = document.model_copy(update={"title": "Invalid request", "errors": [wrong]})
    schema = {"$ref": f"{_SCHEMAS}{ProblemDocument.__name__}"}
    return {
        "description": detail,
        "headers": {name: header(name) for name in (REQUEST_ID, *_HEADERS_OF.get(code, ()))},
        "content": {CONTENT_TYPE: {"schema": schema, "example": document.model_dump(mode="json")}},
    }


class _Schemas:
    """JSON Schemas of all models at once, so that shared ones are defined once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        inputs = {m for o in operations for m in (o.path, o.query, o.body) if m is not None}
        outputs = {o.response for o in operations if o.response is not None} | {ProblemDocument}
        outputs |= {type(answer) for o in operations for answer in o.responses.values()}
        pairs: list[tuple[Model, Literal["validation", "serialization"]]] = [
            *((m, "validation") for m in sorted(inputs, key=str)),
            *((m, "serialization") for m in sorted(outputs, key=str)),
        ]
        self._named, top = models_json_schema(pairs, ref_template=f"{_SCHEMAS}{{model}}")
        self._all: Json = top.get("$defs", {})

    def input(self, model: Model) -> Json:
        return self._named[model, "validation"]

    def output(self, model: Model) -> Json:
        return self._named[model, "serialization"]

    def parameters(self, model: Model, where: str) -> list[Json]:
        schema = self._all[self.input(model)["$ref"].rsplit("/", 1)[1]]
        required = schema.get("required", ())
        return [
            _parameter(name, where, where == "path" or name in required, value)
            for name, value in schema["properties"].items()
        ]

    def used_in(self, *parts: Json) -> Json:
        """The schemas reachable from `parts`; those that only listed parameters are left out."""
        used: Json = {}
        pending: list[Any] = [*parts]
        while pending:
            for name in re.findall(f'"{_SCHEMAS}([^"]+)"', json.dumps(pending.pop())):
                if name not in used:
                    used[name] = self._all[name]
                    pending.append(used[name])
        return used


def _parameter(name: str, where: str, required: bool, schema: Json) -> Json:
    """Absent is the only null that a path, a query or a header can carry."""
    schema = dict(schema)
    options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    schema |= options[0] if len(options) == 1 else {"anyOf": options} if options else {}
    if schema.get("default", ...) is None:
        del schema["default"]
    parameter = {"name": name, "in": where, "required": required, "schema": schema}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    if examples := schema.pop("examples", None):
        parameter["example"] = examples[0]
    return parameter


def _describe(name: str, op: Operation, schemas: _Schemas) -> Json:
    item: Json = {"operationId": name, "summary": op.summary}
    if op.description:
        item["description"] = op.description
    if op.tag:
        item["tags"] = [op.tag]
    if parameters := _parameters(op, schemas):
        item["parameters"] = parameters
    if op.body is not None:
        content = {JSON: _example(schemas.input(op.body), op.example_of(op.body), is_sent=True)}
        item["requestBody"] = {"required": True, "content": content}
    responses = {op.status: _success(op, schemas)}
    responses |= {code: _answer(code, example, schemas) for code, example in op.responses.items()}
    responses |= {code: problem(code) for code in _problems_of(op)}
    item["responses"] = {str(code): responses[code] for code in sorted(responses)}
    return item


def _parameters(op: Operation, schemas: _Schemas) -> list[Json]:
    models: list[tuple[str, Model | None]] = [("path", op.path), ("query", op.query)]
    found = [each for where, model in models if model is not None for each in schemas.parameters(model, where)]
    return [*found, *({"name": each.name, "in": "header", **_header(each)} for each in op.request_headers)]


def _success(op: Operation, schemas: _Schemas) -> Json:
    content: Json = {media: {"example": text} for media, text in op.media.items()}
    if op.response is not None:
        content = {JSON: _example(schemas.output(op.response), op.example_of(op.response))} | content
    headers = {REQUEST_ID: header(REQUEST_ID)} | {each.name: _header(each) for each in op.response_headers}
    return {"description": "Success", "headers": headers} | ({"content": content} if content else {})


def _answer(code: int, example: BaseModel, schemas: _Schemas) -> Json:
    return {
        "description": _PROBLEMS[code],
        "headers": {name: header(name) for name in (REQUEST_ID, *_HEADERS_OF.get(code, ()))},
        "content": {JSON: _example(schemas.output(type(example)), example)},
    }


def _example(schema: Json, example: BaseModel | None, *, is_sent: bool = False) -> Json:
    """What is sent is shown without its defaults."""
    if example is None:
        return {"schema": schema}
    return {"schema": schema, "example": example.model_dump(mode="json", exclude_unset=is_sent)}


def _header(given: Header) -> Json:
    return {"description": given.description, "schema": {"type": "string"}, "example": given.example}


def _problems_of(op: Operation) -> set[int]:
    codes = {*op.errors, 500}
    if op.validates and op.body is not None:
        codes |= {400, 413, 415}
    if op.validates and (op.body or op.path or op.query):
        codes.add(422)
    return codes - op.responses.keys()
