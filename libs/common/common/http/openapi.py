"""OpenAPI: a decorator that validates requests with pydantic, and the OpenAPI 3.1 document of an app.

Also content negotiation, because operations describe every media type that they can return.
"""

import functools
import inspect
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from common.http.context import REQUEST_ID
from common.http.problems import (
    CONTENT_TYPE,
    FieldError,
    Location,
    Problem,
    ProblemDocument,
    field_errors,
    reason_phrase,
)
from common.http.ratelimit import RATE_LIMIT_HEADERS

Json = dict[str, Any]
Model = type[BaseModel]
Mode = Literal["validation", "serialization"]
Handler = Callable[..., Awaitable[web.StreamResponse | BaseModel]]

JSON: Final = "application/json"
OPENAPI: Final = web.AppKey("openapi", dict[str, Any])
EXAMPLE_ID: Final = "01a20bb1-f56a-74eb-ab6a-7aee04ea1360"

_QUALITY: Final = re.compile(r"q=(0(\.[0-9]*)?|1(\.0*)?)", re.ASCII)
_SCHEMAS: Final = "#/components/schemas/"
_DESCRIPTIONS: Final = {
    400: "The request is malformed.",
    401: "An admin token is required.",
    403: "Not allowed for this client.",
    404: "Not found.",
    408: "The request did not arrive in time.",
    409: "The request conflicts with the current state.",
    412: "The resource changed since it was read.",
    413: "The body is larger than this service accepts.",
    414: "The request target is too long.",
    415: "Send application/json.",
    417: "The only supported expectation is 100-continue.",
    422: "The request is well-formed but not valid.",
    428: "Send If-Match with the ETag that you read.",
    429: "Over a limit; try again after Retry-After.",
    431: "The request headers are too large.",
    500: "The service failed to answer; quote the request id.",
    501: "The method or the transfer encoding is not supported.",
    502: "A service behind this one cannot be reached or failed.",
    503: "Full, or a store is down; try again after Retry-After.",
    504: "The deadline passed before the response was ready.",
    505: "Send HTTP/1.1.",
}
_HEADERS: Final[Json] = {
    REQUEST_ID: {
        "description": "The request id: the client's own if it is valid, otherwise a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
        "example": EXAMPLE_ID,
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 12,
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="sluice"',
    },
    **RATE_LIMIT_HEADERS,
}
_HEADERS_OF: Final[dict[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After", *RATE_LIMIT_HEADERS),
    503: ("Retry-After",),
}


@dataclass(frozen=True, slots=True)
class Header:
    """The description of one request or response header."""

    name: str
    description: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A decorator for handlers that validates path, query and JSON body and passes them as `path`, `query`, `body`.

    A returned model is serialised with `status`. The docstring of the handler becomes summary (its first line) and
    description. Raises Problem 415 for a body that is not `application/json`, 400 for invalid JSON, and 422 with every
    invalid field. With `validates=False` the handler reads the request itself, and the models only describe it.

    The other fields are documentation: `errors` lists statuses of problem documents, and `responses` maps other
    statuses to example models. `examples` holds a body, a response or both. `media` maps further media types of the
    response to examples.
    """

    path: Model | None = None
    query: Model | None = None
    body: Model | None = None
    response: Model | None = None
    status: int = 200
    errors: Sequence[int] = ()
    responses: Mapping[int, BaseModel] = field(default_factory=dict)
    tag: str = ""
    media: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[BaseModel] = ()
    request_headers: Sequence[Header] = ()
    response_headers: Sequence[Header] = ()
    validates: bool = True

    def __call__(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        @functools.wraps(handler)
        async def validated(request: web.Request) -> web.StreamResponse:
            result = await handler(request, **(await self._arguments(request) if self.validates else {}))
            if isinstance(result, web.StreamResponse):
                return result
            return web.Response(status=self.status, body=result.model_dump_json().encode(), content_type=JSON)

        validated.operation = self  # type: ignore[attr-defined]  # mypy has no type for attributes of functions
        return validated

    async def _arguments(self, request: web.Request) -> dict[str, BaseModel]:
        parsers: dict[Location, Callable[[], BaseModel]] = {}
        if self.path is not None:
            parsers["path"] = partial(self.path.model_validate, dict(request.match_info))
        if self.query is not None:
            parsers["query"] = partial(self.query.model_validate, dict(request.query))
        if self.body is not None:
            if request.content_type != JSON:
                raise Problem(415, "Send application/json.")
            parsers["body"] = partial(self.body.model_validate_json, await request.read(), strict=True)
        arguments: dict[str, BaseModel] = {}
        errors: list[FieldError] = []
        for location, parse in parsers.items():
            try:
                arguments[location] = parse()
            except ValidationError as error:
                errors += field_errors(error, location)
        if errors:
            raise Problem(422, _DESCRIPTIONS[422], title="Invalid request", errors=errors)
        return arguments

    @property
    def problems(self) -> set[int]:
        """The statuses that are answered with problem documents."""
        codes = {*self.errors, 500}
        if self.validates and self.body is not None:
            codes |= {400, 413, 415}
        if self.validates and (self.body or self.path or self.query):
            codes.add(422)
        return codes - self.responses.keys()


operation = Operation  # reads as a decorator


def preferred(accept: Iterable[str], offered: Sequence[str]) -> str:
    """Return the media type of `offered` that the `Accept` headers rank highest (RFC 9110, 12.5.1).

    Equal q-values go to types that the client names, in its order; without any match the first is returned.
    """
    ranges: dict[str, tuple[float, int]] = {}
    for position, part in enumerate(",".join(accept).lower().split(",")):
        media, *parameters = (word.strip() for word in part.split(";"))
        match = _QUALITY.fullmatch(next((word for word in parameters if word.startswith("q=")), "q=1"))
        ranges.setdefault(media, (float(match[1]) if match else 0.0, position))

    def rank(media: str) -> tuple[float, bool, int]:
        for pattern in (media, f"{media.partition('/')[0]}/*", "*/*"):
            if pattern in ranges:
                quality, position = ranges[pattern]
                return quality, bool(quality) and pattern == media, -position if pattern == media else 0
        return 0.0, False, 0

    return max(offered, key=rank)


def add_openapi(app: web.Application, *, title: str, version: str, description: str = "") -> None:
    """Serve `GET /openapi.json` for the routes added so far, and keep the document as `app[OPENAPI]`."""
    app[OPENAPI] = openapi_document(app, title=title, version=version, description=description)
    body = json.dumps(app[OPENAPI]).encode()

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=JSON)

    app.router.add_get("/openapi.json", openapi)


def openapi_document(app: web.Application, *, title: str, version: str, description: str = "") -> Json:
    """Return the OpenAPI 3.1 document of the routes in `app` whose handlers are decorated with an Operation."""
    routes = [
        (route, route.resource.canonical, route.handler.operation)
        for route in app.router.routes()
        if hasattr(route.handler, "operation") and route.method != "HEAD" and route.resource is not None
    ]
    schemas = _Schemas([op for *_, op in routes])
    paths: dict[str, Json] = {}
    names: Counter[str] = Counter()
    for route, path, op in routes:
        name = route.handler.__name__
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}_{names[name]}"  # one handler may serve several routes
        item = _describe(unique, inspect.getdoc(route.handler) or name, op, schemas)
        paths.setdefault(path, {})[route.method.lower()] = item
    problems = {code for *_, op in routes for code in op.problems}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": schemas.definitions, **components(problems)},
    }


def components(problems: Iterable[int]) -> Json:
    """Return the shared responses for these problem statuses, and the shared headers."""
    return {"responses": {f"Problem{code}": _problem(code) for code in sorted(problems)}, "headers": _HEADERS}


def problem_ref(code: int) -> Json:
    """Return a reference to a response of `components`."""
    return {"$ref": f"#/components/responses/Problem{code}"}


def header_ref(name: str) -> Json:
    """Return a reference to a header of `components`."""
    return {"$ref": f"#/components/headers/{name}"}


def _header_refs(code: int) -> Json:
    return {name: header_ref(name) for name in (REQUEST_ID, *_HEADERS_OF.get(code, ()))}


def _problem(code: int) -> Json:
    text = _DESCRIPTIONS[code]
    document = ProblemDocument(title=reason_phrase(code), status=code, detail=text, request_id=EXAMPLE_ID)
    if code == 422:
        error = FieldError(location="body", field="text", message="String should have at least 1 character")
        document = document.model_copy(update={"title": "Invalid request", "errors": [error]})
    content = {"schema": {"$ref": f"{_SCHEMAS}{ProblemDocument.__name__}"}, "example": document.model_dump(mode="json")}
    return {"description": text, "headers": _header_refs(code), "content": {CONTENT_TYPE: content}}


class _Schemas:
    """The JSON Schemas of all bodies, generated together so that shared models are defined once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        inputs = {op.body for op in operations if op.body is not None}
        outputs = {op.response for op in operations if op.response is not None} | {ProblemDocument}
        outputs |= {type(example) for op in operations for example in op.responses.values()}
        pairs: list[tuple[Model, Mode]] = [(model, "validation") for model in sorted(inputs, key=str)]
        pairs += [(model, "serialization") for model in sorted(outputs, key=str)]
        self._references, schemas = models_json_schema(pairs, ref_template=f"{_SCHEMAS}{{model}}")
        self.definitions: Json = schemas.get("$defs", {})

    def content(self, model: Model, mode: Mode, examples: Iterable[BaseModel]) -> Json:
        """Return schema and example of a JSON body. Request examples omit defaults."""
        content = {"schema": self._references[model, mode]}
        for example in examples:
            if type(example) is model:
                content["example"] = example.model_dump(mode="json", exclude_unset=mode == "validation")
        return {JSON: content}


def _parameters(model: Model | None, location: str) -> list[Json]:
    if model is None:
        return []
    schema = model.model_json_schema()
    required = schema["properties"].keys() if location == "path" else schema.get("required", ())
    return [_parameter(name, location, name in required, each) for name, each in schema["properties"].items()]


def _parameter(name: str, location: str, required: bool, schema: Json) -> Json:
    """Describe a parameter. It can be absent but never null, so null is removed from its schema."""
    schema = dict(schema)
    options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    schema |= options[0] if len(options) == 1 else {"anyOf": options} if options else {}
    if schema.get("default", ...) is None:
        del schema["default"]
    parameter = {"name": name, "in": location, "required": required, "schema": schema}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    if examples := schema.pop("examples", None):
        parameter["example"] = examples[0]
    return parameter


def _describe(name: str, doc: str, op: Operation, schemas: _Schemas) -> Json:
    summary, _, description = doc.partition("\n")
    item: Json = {"operationId": name, "summary": summary, "description": description.strip(), "tags": [op.tag]}
    item["parameters"] = [*_parameters(op.path, "path"), *_parameters(op.query, "query")]
    item["parameters"] += [{"name": each.name, "in": "header", **_header(each)} for each in op.request_headers]
    item = {key: value for key, value in item.items() if value not in ("", [], [""])}
    if op.body is not None:
        item["requestBody"] = {"required": True, "content": schemas.content(op.body, "validation", op.examples)}
    responses = {op.status: _success(op, schemas)}
    for code, example in op.responses.items():
        content = schemas.content(type(example), "serialization", [example])
        responses[code] = {"description": _DESCRIPTIONS[code], "headers": _header_refs(code), "content": content}
    responses |= {code: problem_ref(code) for code in op.problems}
    item["responses"] = {str(code): responses[code] for code in sorted(responses)}
    return item


def _success(op: Operation, schemas: _Schemas) -> Json:
    content = {} if op.response is None else schemas.content(op.response, "serialization", op.examples)
    content |= {media: {"example": text} for media, text in op.media.items()}
    headers = {REQUEST_ID: header_ref(REQUEST_ID)} | {each.name: _header(each) for each in op.response_headers}
    return {"description": "Success", "headers": headers} | ({"content": content} if content else {})


def _header(header: Header) -> Json:
    return {"description": header.description, "schema": {"type": "string"}, "example": header.example}
