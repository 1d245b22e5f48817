from edge_limiter.openapi_merge import merge


def document(path: str, schema: str, value: dict[str, object]) -> dict[str, object]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    operation = {"operationId": "read", "responses": {"200": {"description": "Success", "content": content}}}
    return {"paths": {path: {"get": operation}}, "components": {"schemas": {schema: value}}}


OWN: dict[str, object] = {
    "openapi": "3.1.0",
    "info": {},
    "paths": {"/": {}},
    "components": {"schemas": {"Problem": {}}},
}


def owner_of(path: str) -> str | None:
    return path.split("/")[1] or None


def test_operations__are_tagged_by_service() -> None:
    merged = merge(OWN, {"metrics": document("/metrics", "Count", {"type": "object"})}, owner_of)
    operation = merged["paths"]["/metrics"]["get"]
    assert (operation["tags"], operation["operationId"]) == (["metrics"], "metrics_read")
    assert set(merged["paths"]) == {"/", "/metrics"}


def test_schema_name_that_means_two_things__gets_its_service_in_front() -> None:
    services = {
        "metrics": document("/metrics", "Count", {"type": "object"}),
        "analyst": document("/analyst", "Count", {"type": "array"}),
    }
    merged = merge(OWN, services, owner_of)
    assert set(merged["components"]["schemas"]) == {"Problem", "Count", "AnalystCount"}
    content = merged["paths"]["/analyst"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["$ref"] == "#/components/schemas/AnalystCount"


def test_path_that_the_edge_sends_elsewhere__is_left_out() -> None:
    merged = merge(OWN, {"metrics": document("/internal", "Count", {})}, owner_of)
    assert "/internal" not in merged["paths"]
