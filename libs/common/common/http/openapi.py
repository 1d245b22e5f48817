"""The decorator that validates requests by pydantic models, and notes what the specification says of them."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ValidationError

from common.http.problems import FieldError, Problem, field_errors, invalid_json

Model = type[BaseModel]
Handler = Callable[..., Awaitable[web.StreamResponse | BaseModel]]


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or of an answer."""

    name: str
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What the specification says about one handler."""

    path: Model | None
    query: Model | None
    body: Model | None
    response: Model | None
    status: int
    errors: tuple[int, ...]
    responses: Mapping[int, BaseModel]
    tag: str
    summary: str
    description: str
    media: Mapping[str, str]
    examples: tuple[BaseModel, ...]
    request_headers: tuple[Header, ...]
    response_headers: tuple[Header, ...]
    validates: bool

    def example_of(self, model: Model) -> BaseModel | None:
        """The first example that is a `model`."""
        return next((example for example in self.examples if type(example) is model), None)


def operation(
    *,
    path: Model | None = None,
    query: Model | None = None,
    body: Model | None = None,
    response: Model | None = None,
    status: int = 200,
    errors: Sequence[int] = (),
    responses: Mapping[int, BaseModel] | None = None,
    tag: str = "",
    media: Mapping[str, str] | None = None,
    examples: Sequence[BaseModel] = (),
    request_headers: Sequence[Header] = (),
    response_headers: Sequence[Header] = (),
    validates: bool = True,
) -> Callable[[Handler], Callable[[web.Request], Awaitable[web.StreamResponse]]]:
    """Validate path, query and JSON body into keyword arguments `path`, `query`, `body`; serialise the returned model.

    The handler's docstring is its summary (first line) and description. Raises Problem 415 for a body that is not
    `application/json`, 400 for one that is not JSON, and 422 naming every field that is wrong. With `validates` false
    the handler reads the request itself, and the models only describe it.

    The rest is for the specification: `errors` are answered by problem documents, `answers` by a model of their own, of
    which an example stands there. `examples` are a `body`, a `response` or both. `media` are types other than JSON
    that the answer can have, each with an example. `takes` and `sends` are headers of the request and of the answer.
    """

    def decorate(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        @functools.wraps(handler)
        async def validated(request: web.Request) -> web.StreamResponse:
            arguments = await _arguments(request, path, query, body) if validates else {}
            result = await handler(request, **arguments)
            if isinstance(result, web.StreamResponse):
                return result
            return web.Response(status=status, body=result.model_dump_json().encode(), content_type="application/json")

        summary, _, description = (inspect.getdoc(handler) or handler.__name__).partition("\n")
        validated.operation = Operation(  # type: ignore[attr-defined]  # functions take attributes; mypy has no type for it
            path=path,
            query=query,
            body=body,
            response=response,
            status=status,
            errors=tuple(errors),
            responses=responses or {},
            tag=tag,
            summary=summary,
            description=description.strip(),
            media=media or {},
            examples=tuple(examples),
            request_headers=tuple(request_headers),
            response_headers=tuple(response_headers),
            validates=validates,
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
                errors += field_errors(error, name)
    if body is not None:
        try:
            arguments["body"] = body.model_validate_json(await _json_bytes(request), strict=True)
        except ValidationError as error:
            if (problem := invalid_json(error)) is not None:
                raise problem from None
            errors += field_errors(error, "body")
    if errors:
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=errors)
    return arguments


async def _json_bytes(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise Problem(415, "Send application/json.")
    return await request.read()
