"""The OpenAPI document that the edge serves: how it is merged, and that the committed file is current."""

from typing import Any

from build import PATH, render
from merge import merge
from openapi_spec_validator import validate

from edge_limiter.proxy.routes import Route, RouteTable

Json = dict[str, Any]
OWN: Json = {
    "openapi": "3.1.0",
    "info": {"title": "Edge", "version": "1"},
    "paths": {"/": {"get": {"operationId": "root", "responses": {"200": {"description": "Success"}}}}},
    "components": {"schemas": {"ProblemDocument": {}}},
}
ROUTES = RouteTable(
    [
        Route("/metrics", "metrics", frozenset({"GET"}), prefix=True),
        Route("/metrics", "metrics", frozenset({"PUT"}), prefix=True, needs_admin=True),
        Route("/analyst", "analyst", prefix=True),
        Route("/predict", "inference", policy="predict", cost="texts"),
    ]
)


def document(path: str, schema: str = "Count", value: Json | None = None, method: str = "get", **more: Any) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    operation = {"operationId": "read", "responses": {"200": {"description": "Success", "content": content}}, **more}
    return {
        "info": {"description": "What it does."},
        "paths": {path: {method: operation}},
        "components": {"schemas": {schema: value or {"type": "object"}}},
    }


def merged(**services: Json) -> Json:
    whole = merge(OWN, services, ROUTES.match)
    validate(whole)
    return whole


def test_operations__are_tagged_by_service() -> None:
    whole = merged(metrics=document("/metrics"))
    operation = whole["paths"]["/metrics"]["get"]
    assert (operation["tags"], operation["operationId"]) == (["metrics"], "metrics_read")
    assert set(whole["paths"]) == {"/", "/metrics"}
    assert whole["tags"] == [{"name": "metrics", "description": "What it does."}]


def test_ambiguous_schema_name__is_prefixed_with_its_service() -> None:
    whole = merged(metrics=document("/metrics"), analyst=document("/analyst", value={"type": "array"}))
    assert set(whole["components"]["schemas"]) == {"ProblemDocument", "Count", "AnalystCount"}
    content = whole["paths"]["/analyst"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["$ref"] == "#/components/schemas/AnalystCount"


def test_operation_forwarded_to_another_service__is_left_out() -> None:
    whole = merged(metrics=document("/internal"), analyst=document("/metrics"), inference={"paths": {"/predict": {}}})
    assert set(whole["paths"]) == {"/"}


def test_refusals_of_the_edge__are_in_every_operation_of_a_service() -> None:
    responses = merged(metrics=document("/metrics"))["paths"]["/metrics"]["get"]["responses"]
    refusals = {"400", "403", "408", "414", "415", "417", "429", "431", "500", "501", "502", "503", "504", "505"}
    assert set(responses) == refusals | {"200"}
    assert responses["502"] == {"$ref": "#/components/responses/Problem502"}


def test_own_page__has_only_the_refusals_of_the_server() -> None:
    responses = merged()["paths"]["/"]["get"]["responses"]
    assert set(responses) == {"200", "400", "408", "414", "417", "431", "500", "501", "505"}


def test_body__adds_the_refusal_of_large_bodies() -> None:
    body: Json = {"content": {"application/json": {"schema": {"type": "object"}}}}
    put = merged(metrics=document("/metrics", method="put", requestBody=body))["paths"]["/metrics"]["put"]
    assert "413" in put["responses"]
    assert "413" not in merged(metrics=document("/metrics"))["paths"]["/metrics"]["get"]["responses"]


def test_admin_route__requires_the_token() -> None:
    whole = merged(metrics=document("/metrics", method="put"))
    operation = whole["paths"]["/metrics"]["put"]
    assert operation["security"] == [{"adminToken": []}]
    assert operation["responses"]["401"] == {"$ref": "#/components/responses/Problem401"}
    assert whole["components"]["securitySchemes"]["adminToken"]["scheme"] == "bearer"
    assert "security" not in merged(metrics=document("/metrics"))["paths"]["/metrics"]["get"]


def test_limited_route__has_limit_headers() -> None:
    operation = merged(inference=document("/predict", method="post"))["paths"]["/predict"]["post"]
    legacy = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert set(operation["responses"]["200"]["headers"]) == {"RateLimit", "RateLimit-Policy", *legacy}
    limited = merged(metrics=document("/metrics"))["components"]["responses"]["Problem429"]
    assert {"Retry-After", "RateLimit", "X-Request-ID", *legacy} <= set(limited["headers"])
    example = limited["content"]["application/problem+json"]["example"]
    assert (example["violated-policies"], example["type"].endswith("#quota-exceeded")) == (["predict"], True)


def test_error_schema_of_a_service__is_listed_with_the_edges_problem() -> None:
    own: Json = {"description": "No.", "content": {"application/json": {"schema": {"type": "object"}}}}
    responses: Json = {"200": {"description": "Success"}, "400": own}
    operation = merged(inference=document("/predict", method="post", responses=responses))["paths"]["/predict"]["post"]
    assert set(operation["responses"]["400"]["content"]) == {"application/json", "application/problem+json"}
    assert "X-Request-ID" in operation["responses"]["400"]["headers"]


def test_committed_document__is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == render(), "the API changed: run `make openapi`"
