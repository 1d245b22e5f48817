"""The decorator validates requests with the models of the OpenAPI document, which is valid."""

import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field

from common.http.app import AppConfig, create_app
from common.http.openapi import OPENAPI, Header, add_openapi, operation
from common.http.problems import Problem
from common.runtime.metrics import HttpMetrics

SECRET = "hunter2-wrong"

Client = TestClient[web.Request, web.Application]


class ThingPath(BaseModel):
    number: Annotated[int, Field(ge=1, le=99, examples=[7], description="Which one.")]


class ThingQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    order: Literal["up", "down"] = "up"
    after: Annotated[str, Field(max_length=9)] | None = None


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    share: float = 0.0


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: Annotated[str, Field(min_length=1, max_length=20)]
    count: Annotated[int, Field(le=1 << 31)] = 0
    inner: Inner = Inner()
    tags: list[str] = []


class Stored(BaseModel):
    number: int
    thing: Thing | None = None
    limit: int = 0


class Broken(BaseModel):
    error: str


@operation(
    path=ThingPath,
    body=Thing,
    response=Stored,
    status=201,
    errors=[409, 503],
    tag="things",
    examples=[Thing(text="hi"), Stored(number=7, thing=Thing(text="hi"))],
    request_headers=[Header("If-Match", "The version to replace.", '"1"')],
    response_headers=[Header("ETag", "Its version.", '"1"')],
)
async def put_thing(_request: web.Request, path: ThingPath, body: Thing) -> Stored:
    """Store one thing.

    It is kept.
    """
    if body.text == "taken":
        raise Problem(409)
    return Stored(number=path.number, thing=body)


@operation(path=ThingPath, query=ThingQuery, response=Stored, media={"text/csv": "number\r\n7\r\n"})
async def get_thing(_request: web.Request, path: ThingPath, query: ThingQuery) -> Stored:
    """Read one thing."""
    return Stored(number=path.number, limit=query.limit)


@operation(media={"text/plain": "plain"})
async def get_text(_request: web.Request) -> web.Response:
    return web.Response(text="plain")


@operation(path=ThingPath, body=Thing, response=Stored, responses={400: Broken(error="no")}, validates=False)
async def read_it_yourself(request: web.Request) -> Stored:
    return Stored(number=int(request.match_info["number"]), limit=len(await request.read()))


async def undocumented(_request: web.Request) -> web.Response:
    return web.Response()


def create() -> web.Application:
    app = create_app(AppConfig(HttpMetrics(CollectorRegistry()), max_body_bytes=1 << 20))
    app.router.add_put(r"/things/{number:\d{1,3}}", put_thing)
    app.router.add_get(r"/things/{number:\d{1,3}}", get_thing)
    app.router.add_get("/words/{number}", get_thing)
    app.router.add_get("/text", get_text)
    app.router.add_post("/anything/{number}", read_it_yourself)
    app.router.add_get("/internal", undocumented)
    add_openapi(app, title="Probe", version="1.2.3", description="A probe.")
    return app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(create())) as made:
        yield made


async def put(client: Client, body: bytes | str, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
    data = io.BytesIO(body.encode() if isinstance(body, str) else body)
    async with client.put("/things/7", data=data, headers={"Content-Type": content_type}) as response:
        text = await response.text()
        assert SECRET not in text
        return response.status, json.loads(text)


async def get(client: Client, path: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path) as response:
        return response.status, await response.json(content_type=None)


async def test_valid_request__reaches_the_handler_as_models(client: Client) -> None:
    status, body = await put(client, '{"text": "hi", "tags": ["a"]}')
    assert status == 201
    assert body["thing"] == {"text": "hi", "count": 0, "inner": {"share": 0.0}, "tags": ["a"]}


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/jsonx", "", "nonsense", "a/b;c="]
)
async def test_other_content_type__is_415(client: Client, content_type: str) -> None:
    assert (await put(client, "{}", content_type))[0] == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_json_content_type__is_taken_in_all_its_spellings(client: Client, content_type: str) -> None:
    assert (await put(client, '{"text": "hi"}', content_type))[0] == 201


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nonsense",
        '{"text": }',
        '{"text": "hi"} trailing',
        '{"text": "\\ud800"}',
        '{"text": "\\udc00\\ud800"}',
        '{"text": "a\nb"}',
        b'{"text": "\xff\xfe"}',
        b'{"\xc3\x28": 1}',
        b"\xef\xbb\xbf{}",
        '{"text": "hi"}'.encode("utf-16"),
        "[" * 100_000,
        '{"inner":' * 10_000,
        "{'text': 'hi'}",
    ],
)
async def test_body_that_is_not_json__is_400_and_hears_where(client: Client, body: bytes | str) -> None:
    status, document = await put(client, body)
    assert status == 400
    assert re.fullmatch(r"The body is not valid JSON: .+ at line \d+ column \d+\.", document["detail"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f'{{"text": "{SECRET}\\ud83d"}}', "unexpected end of hex escape at line 1 column 30"),
        (f'{{"text": "{SECRET}é"}}'.encode("latin-1"), "invalid unicode code point at line 1 column 24"),
        (f'{{"text": "{SECRET}",}}', "trailing comma at line 1 column 26"),
        (f'{{"text": {SECRET}}}', "expected value at line 1 column 10"),
    ],
    ids=["cut within an emoji", "latin-1", "comma", "no quotes"],
)
async def test_reason_why_a_body_is_not_json__repeats_nothing_of_it(
    client: Client, body: bytes | str, reason: str
) -> None:
    """JavaScript can cut a text within an emoji. Its client needs to learn what is wrong."""
    _, document = await put(client, body)
    assert document["detail"] == f"The body is not valid JSON: {reason}."


async def test_invalid_body__is_answered_as_the_documents_show(client: Client) -> None:
    page = (Path(__file__).parents[4] / "docs" / "http.md").read_text(encoding="utf-8")
    shown = json.loads(page.split("```json")[1].split("```")[0])
    status, document = await put(client, "{}")
    assert status == shown["status"]
    assert document == shown | {"request_id": document["request_id"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("[]", ""),
        ("null", ""),
        (f'"{SECRET}"', ""),
        ("{}", "text"),
        ('{"text": ""}', "text"),
        ('{"text": 5}', "text"),
        ('{"text": null}', "text"),
        ('{"text": ["hi"]}', "text"),
        (f'{{"text": "{SECRET * 2}"}}', "text"),
        ('{"text": "hi", "count": "5"}', "count"),
        ('{"text": "hi", "count": 5.5}', "count"),
        ('{"text": "hi", "count": true}', "count"),
        ('{"text": "hi", "count": 9999999999999999999999999}', "count"),
        ('{"text": "hi", "inner": {"share": NaN}}', "inner.share"),
        ('{"text": "hi", "inner": {"share": Infinity}}', "inner.share"),
        ('{"text": "hi", "inner": {"share": 1e999}}', "inner.share"),
        ('{"text": "hi", "inner": {"shaer": 1}}', "inner.shaer"),
        (f'{{"text": "hi", "{SECRET} {SECRET}": 1}}', "?"),
        ('{"text": "hi", "tags": ["a", 1]}', "tags.1"),
    ],
)
async def test_body_of_the_wrong_shape__is_422_naming_the_field(client: Client, body: str, field: str) -> None:
    status, document = await put(client, body)
    assert status == 422
    assert [(error["location"], error["field"]) for error in document["errors"]] == [("body", field)]


async def test_problem_of_the_handler__is_answered(client: Client) -> None:
    assert (await put(client, '{"text": "taken"}'))[0] == 409


async def test_query_and_path__are_read_with_their_defaults(client: Client) -> None:
    assert await get(client, "/things/7") == (200, {"number": 7, "thing": None, "limit": 10})
    assert (await get(client, "/things/7?limit=5&order=down"))[1]["limit"] == 5


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/things/100", [("path", "number")]),
        ("/things/7?limit=x", [("query", "limit")]),
        ("/things/7?limit=0", [("query", "limit")]),
        ("/things/7?order=sideways", [("query", "order")]),
        ("/things/7?orderr=up", [("query", "orderr")]),
        ("/things/7?limit=", [("query", "limit")]),
        ("/things/0?limit=x", [("path", "number"), ("query", "limit")]),
        ("/words/%FF", [("path", "number")]),
        ("/words/%00", [("path", "number")]),
        ("/words/%D9%A3%20", [("path", "number")]),
        (f"/words/{'9' * 5000}", [("path", "number")]),
    ],
)
async def test_wrong_path_or_query__is_422_naming_the_place(
    client: Client, path: str, wrong: list[tuple[str, str]]
) -> None:
    status, document = await get(client, path)
    assert [(error["location"], error["field"]) for error in document["errors"]] == wrong
    assert status == 422


async def test_handler_that_reads_for_itself__gets_what_was_sent(client: Client) -> None:
    async with client.post("/anything/7", data=b"no JSON") as response:
        assert (response.status, (await response.json())["limit"]) == (200, 7)


@pytest.fixture
def document() -> dict[str, Any]:
    return create()[OPENAPI]


async def test_document__is_served_and_valid_openapi_3_1(client: Client) -> None:
    status, served = await get(client, "/openapi.json")
    assert (status, served["openapi"][:3]) == (200, "3.1")
    validate(served)


def test_operations__have_unique_ids_and_their_docstrings(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {"/things/{number}", "/words/{number}", "/text", "/anything/{number}"}
    names = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert names == ["put_thing", "get_thing", "get_thing_2", "get_text", "read_it_yourself"]
    item = document["paths"]["/things/{number}"]["put"]
    assert (item["summary"], item["description"], item["tags"]) == ("Store one thing.", "It is kept.", ["things"])


def test_parameters__can_be_absent_but_not_null(document: dict[str, Any]) -> None:
    number, limit, _, after = document["paths"]["/things/{number}"]["get"]["parameters"]
    assert number == {
        "name": "number",
        "in": "path",
        "required": True,
        "schema": {"title": "Number", "type": "integer", "minimum": 1, "maximum": 99},
        "description": "Which one.",
        "example": 7,
    }
    assert (limit["in"], limit["required"], limit["schema"]["default"]) == ("query", False, 10)
    assert after["schema"] == {"title": "After", "type": "string", "maxLength": 9}


def test_request_and_response__have_examples(document: dict[str, Any]) -> None:
    item = document["paths"]["/things/{number}"]["put"]
    assert item["requestBody"]["content"]["application/json"]["example"] == {"text": "hi"}
    content = item["responses"]["201"]["content"]
    assert content["application/json"]["example"]["thing"]["count"] == 0
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
    responses = document["paths"]["/anything/{number}"]["post"]["responses"]
    assert list(responses) == ["200", "400", "500"]
    assert responses["400"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Broken"}, "example": {"error": "no"}}
    }


def test_schemas_of_parameters__are_omitted(document: dict[str, Any]) -> None:
    names = {"Thing", "Inner", "Stored", "Broken", "ProblemDocument", "FieldError"}
    assert set(document["components"]["schemas"]) == names
