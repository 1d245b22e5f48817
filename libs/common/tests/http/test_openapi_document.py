"""The OpenAPI document is valid and matches the decorators."""

from typing import Annotated, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from common.http.app import AppConfig, create_app
from common.http.openapi import Header, add_openapi, openapi_document, operation
from common.runtime.metrics import HttpMetrics


class ThingPath(BaseModel):
    number: Annotated[int, Field(ge=1, examples=[7], description="Which one.")]


class ThingQuery(BaseModel):
    limit: int = 10
    after: Annotated[str, Field(max_length=9)] | None = None


class Thing(BaseModel):
    text: str
    count: int = 0


class Stored(BaseModel):
    number: int
    thing: Thing | None = None


class Broken(BaseModel):
    error: str


ETAG = Header("ETag", "Its version.", '"1"')


@operation(
    path=ThingPath,
    body=Thing,
    response=Stored,
    status=201,
    errors=[409, 503],
    tag="things",
    examples=[Thing(text="hi"), Stored(number=7, thing=Thing(text="hi"))],
    request_headers=[Header("If-Match", "The version to replace.", '"1"')],
    response_headers=[ETAG],
)
async def put_thing(_request: web.Request, path: ThingPath, body: Thing) -> Stored:
    """Store one thing.

    It is kept.
    """
    return Stored(number=path.number, thing=body)


@operation(path=ThingPath, query=ThingQuery, response=Stored, media={"text/csv": "number\r\n7\r\n"})
async def get_thing(_request: web.Request, path: ThingPath, query: ThingQuery) -> Stored:
    """Read one thing."""
    return Stored(number=path.number)


@operation(media={"text/plain": "plain"})
async def get_text(_request: web.Request) -> web.Response:
    return web.Response(text="plain")


@operation(body=Thing, response=Stored, responses={400: Broken(error="no")}, validates=False)
async def read_it_yourself(_request: web.Request) -> web.Response:
    return web.Response()


async def undocumented(_request: web.Request) -> web.Response:
    return web.Response()


def create() -> web.Application:
    app = create_app(AppConfig(HttpMetrics(CollectorRegistry())))
    app.router.add_put(r"/things/{number:\d{1,3}}", put_thing)
    app.router.add_get(r"/things/{number:\d{1,3}}", get_thing)
    app.router.add_get("/words/{number}", get_thing)
    app.router.add_get("/text", get_text)
    app.router.add_post("/own", read_it_yourself)
    app.router.add_get("/internal", undocumented)
    add_openapi(app, title="Probe", version="1.2.3", description="A probe.")
    return app


@pytest.fixture
def document() -> dict[str, Any]:
    return openapi_document(create(), title="Probe", version="1")


async def test_document__is_served_and_valid_openapi_3_1() -> None:
    async with TestClient(TestServer(create())) as client, client.get("/openapi.json") as response:
        served = await response.json()
    assert served["openapi"].startswith("3.1")
    validate(served)


def test_operations__have_unique_ids_and_their_docstrings(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {"/things/{number}", "/words/{number}", "/text", "/own"}
    names = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert names == ["put_thing", "get_thing", "get_thing_2", "get_text", "read_it_yourself"]
    item = document["paths"]["/things/{number}"]["put"]
    assert (item["summary"], item["description"], item["tags"]) == ("Store one thing.", "It is kept.", ["things"])


def test_parameters__can_be_absent_but_not_null(document: dict[str, Any]) -> None:
    number, limit, after = document["paths"]["/things/{number}"]["get"]["parameters"]
    assert number == {
        "name": "number",
        "in": "path",
        "required": True,
        "schema": {"title": "Number", "type": "integer", "minimum": 1},
        "description": "Which one.",
        "example": 7,
    }
    assert (limit["in"], limit["required"], limit["schema"]["default"]) == ("query", False, 10)
    assert after["schema"] == {"title": "After", "type": "string", "maxLength": 9}


def test_request_and_response__have_examples(document: dict[str, Any]) -> None:
    item = document["paths"]["/things/{number}"]["put"]
    assert item["requestBody"]["content"]["application/json"]["example"] == {"text": "hi"}
    content = item["responses"]["201"]["content"]
    assert content["application/json"]["example"] == {"number": 7, "thing": {"text": "hi", "count": 0}}
    csv = document["paths"]["/things/{number}"]["get"]["responses"]["200"]["content"]["text/csv"]
    assert csv == {"example": "number\r\n7\r\n"}
    assert list(document["paths"]["/text"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_headers__of_request_and_response_are_described(document: dict[str, Any]) -> None:
    item = document["paths"]["/things/{number}"]["put"]
    assert [each["name"] for each in item["parameters"] if each["in"] == "header"] == ["If-Match"]
    assert item["responses"]["201"]["headers"].keys() == {"X-Request-ID", "ETag"}


def test_errors__are_shared_problem_documents(document: dict[str, Any]) -> None:
    responses = document["paths"]["/things/{number}"]["put"]["responses"]
    assert list(responses) == ["201", "400", "409", "413", "415", "422", "500", "503"]
    assert responses["503"] == {"$ref": "#/components/responses/Problem503"}
    shared = document["components"]["responses"]["Problem503"]
    assert shared["headers"].keys() == {"X-Request-ID", "Retry-After"}
    assert shared["content"]["application/problem+json"]["example"]["status"] == 503


def test_response_with_its_own_model__has_its_schema(document: dict[str, Any]) -> None:
    responses = document["paths"]["/own"]["post"]["responses"]
    assert list(responses) == ["200", "400", "500"]
    assert responses["400"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Broken"}, "example": {"error": "no"}}
    }


def test_schemas_of_parameters__are_omitted(document: dict[str, Any]) -> None:
    names = {"Thing", "Stored", "Broken", "ProblemDocument", "FieldError"}
    assert set(document["components"]["schemas"]) == names
