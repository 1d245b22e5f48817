"""Merge the OpenAPI documents of the services into the one that clients of the edge see."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common.http.openapi import EXAMPLE_ID, components, header_ref, problem_ref
from common.http.ratelimit import RATE_LIMIT_HEADERS, Limit, quota_exceeded
from edge_limiter.proxy.routes import Route

Document = dict[str, Any]
RouteOf = Callable[[str, str], Route | None]
"""Which route takes a method and a path."""

TOKEN: Final = "adminToken"

_REF: Final = '"#/components/schemas/'
_SERVER: Final = (400, 408, 414, 417, 431, 500, 501, 505)
_PROXY: Final = (*_SERVER, 403, 415, 429, 502, 503, 504)
_BODY: Final = (413,)
_ADMIN: Final = (401,)
_COMPONENTS: Final[Document] = {
    **components({*_PROXY, *_BODY, *_ADMIN}),
    "securitySchemes": {
        TOKEN: {"type": "http", "scheme": "bearer", "description": "EDGE_ADMIN_TOKEN; `make token` prints it."}
    },
}


def _describe_refusal(answer: Document) -> None:
    """Add what a 429 has beside other problems, with a real one as the example."""
    (content,) = answer["content"].values()
    content["example"] = json.loads(quota_exceeded(Limit("predict", 60, 60, 0, 12)).body(EXAMPLE_ID))
    names = {"type": "array", "items": {"type": "string"}, "description": "The policies that refused the request."}
    content["schema"] = {"allOf": [content["schema"], {"properties": {"violated-policies": names}}]}


_describe_refusal(_COMPONENTS["responses"]["Problem429"])


def merge(own: Document, services: Mapping[str, Document], route_of: RouteOf) -> Document:
    """Return `own` with every operation that the edge routes to its service, tagged with the service's name.

    Operations gain what the edge adds: its refusals, the headers of a limit, the admin token. A schema that several
    documents share appears once. A schema name with two meanings is prefixed with the name of its service.
    """
    merged: Document = json.loads(json.dumps(own))
    _add_components(merged, {"components": _COMPONENTS})
    for item in merged.setdefault("paths", {}).values():
        for operation in item.values():
            _add_problems(operation, _SERVER, merged)
    for name, document in services.items():
        document = _with_unique_schemas(name, document, merged["components"].get("schemas", {}))
        _add_components(merged, document)
        description = document.get("info", {}).get("description", "")
        merged.setdefault("tags", []).append({"name": name, "description": description})
        for path, item in document.get("paths", {}).items():
            for method, operation in item.items():
                route = route_of(method.upper(), path)
                if route is not None and route.service == name:
                    merged["paths"].setdefault(path, {})[method] = _public(operation, name, route, merged)
    return merged


def _add_components(merged: Document, document: Document) -> None:
    """Components of one name are equal: `common` writes them, and clashing schemas were renamed."""
    for kind, found in document.get("components", {}).items():
        merged.setdefault("components", {}).setdefault(kind, {}).update(found)


def _with_unique_schemas(name: str, document: Document, taken: Mapping[str, Any]) -> Document:
    schemas = document.get("components", {}).get("schemas", {})
    clashes = [schema for schema, value in schemas.items() if taken.get(schema, value) != value]
    text = json.dumps(document)
    for schema in clashes:
        text = text.replace(f'{_REF}{schema}"', f'{_REF}{name.title()}{schema}"')
    renamed: Document = json.loads(text)
    for schema in clashes:
        renamed["components"]["schemas"][f"{name.title()}{schema}"] = renamed["components"]["schemas"].pop(schema)
    return renamed


def _public(operation: Document, name: str, route: Route, merged: Document) -> Document:
    """Return the operation as clients of the edge see it."""
    operation_id = re.sub(r"\W", "_", f"{name}_{operation.get('operationId', '')}")
    public = {**operation, "tags": [name], "operationId": operation_id}
    if route.policy is not None:
        limits = {each: header_ref(each) for each in RATE_LIMIT_HEADERS}
        for code, answer in public["responses"].items():
            if code.startswith("2"):
                answer["headers"] = answer.get("headers", {}) | limits
    if route.needs_admin:
        public["security"] = [{TOKEN: []}]
    codes = (*_PROXY, *(_BODY if "requestBody" in operation else ()), *(_ADMIN if route.needs_admin else ()))
    _add_problems(public, codes, merged)
    return public


def _add_problems(operation: Document, codes: Iterable[int], merged: Document) -> None:
    """Add the edge's problem documents. A service's own shape for a status is kept, too."""
    responses = operation["responses"]
    for code in codes:
        answer = responses.setdefault(str(code), problem_ref(code))
        if "$ref" not in answer:
            shared = merged["components"]["responses"][f"Problem{code}"]
            answer["content"] = shared["content"] | answer.get("content", {})
            answer["headers"] = shared["headers"] | answer.get("headers", {})
    operation["responses"] = {code: responses[code] for code in sorted(responses)}
