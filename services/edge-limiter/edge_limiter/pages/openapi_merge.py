"""One OpenAPI document out of those of the edge and of the services behind it, and of what the edge adds to them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common.http.openapi import EXAMPLE_ID, components, header_ref, problem_ref
from common.http.ratelimit import RATE_LIMIT_HEADERS
from edge_limiter.proxy.responses import refusal
from edge_limiter.proxy.routing import Route
from edge_limiter.ratelimit.policy import Decision, Policy

Document = dict[str, Any]
RouteOf = Callable[[str, str], Route | None]
"""Which route takes a method and a path."""

TOKEN: Final = "adminToken"

_REF: Final = '"#/components/schemas/'
_DOOR: Final = (400, 408, 414, 417, 431, 500, 501, 505)
_PROXY: Final = (*_DOOR, 403, 415, 429, 502, 503, 504)
_BODY: Final = (413,)
_ADMIN: Final = (401,)
_COMPONENTS: Final[Document] = {
    **components({*_PROXY, *_BODY, *_ADMIN}),
    "securitySchemes": {
        TOKEN: {"type": "http", "scheme": "bearer", "description": "EDGE_ADMIN_TOKEN; `make run` makes and shows one."}
    },
}


def _tell_of_limits(answer: Document) -> None:
    """What 429 has beside other problems, shown by a real one."""
    decision = Decision(False, 0, 12.0, "store")
    (content,) = answer["content"].values()
    content["example"] = json.loads(refusal(Policy("predict", 60, 60), decision).body(EXAMPLE_ID))
    names = {"type": "array", "items": {"type": "string"}, "description": "The policies that refused the request."}
    content["schema"] = {"allOf": [content["schema"], {"properties": {"violated-policies": names}}]}


_tell_of_limits(_COMPONENTS["responses"]["Problem429"])


def merge(own: Document, services: Mapping[str, Document], route_of: RouteOf) -> Document:
    """`own`, and every operation that the edge routes to its service, tagged with the service's name.

    Each has what the edge adds: its refusals, the headers of a limit, the token. Schemas that several documents share
    are kept once; a name that means two things gets its service in front.
    """
    merged: Document = json.loads(json.dumps(own))
    _add_components(merged, {"components": _COMPONENTS})
    for item in merged.setdefault("paths", {}).values():
        for operation in item.values():
            _add_problems(operation, _DOOR, merged)
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
    """Those of the same name mean the same: `common` writes them, and schemas are apart by now."""
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
    """The operation as a client of the edge meets it."""
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
    """A service that answers a status in a shape of its own keeps it, beside the edge's problem document."""
    responses = operation["responses"]
    for code in codes:
        answer = responses.setdefault(str(code), problem_ref(code))
        if "$ref" not in answer:
            shared = merged["components"]["responses"][f"Problem{code}"]
            answer["content"] = shared["content"] | answer.get("content", {})
            answer["headers"] = shared["headers"] | answer.get("headers", {})
    operation["responses"] = {code: responses[code] for code in sorted(responses)}
