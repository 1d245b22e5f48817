"""One OpenAPI document out of those of the edge and of the services behind it; knows no HTTP."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Document = dict[str, Any]
_REF = '"#/components/schemas/'


def merge(own: Document, services: Mapping[str, Document], owner_of: Callable[[str], str | None]) -> Document:
    """`own`, and every operation whose path `owner_of` gives to its service, tagged with the service's name.

    Schemas that several documents share are kept once; a name that means two things gets its service in front.
    """
    merged: Document = json.loads(json.dumps(own))
    paths = merged.setdefault("paths", {})
    schemas = merged.setdefault("components", {}).setdefault("schemas", {})
    for name, document in services.items():
        document = _with_unique_schemas(name, document, schemas)
        schemas.update(document.get("components", {}).get("schemas", {}))
        for path, item in document.get("paths", {}).items():
            if owner_of(path) == name:
                paths[path] = {method: _tagged(name, operation) for method, operation in item.items()}
    return merged


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


def _tagged(name: str, operation: Any) -> Any:
    if not isinstance(operation, dict):
        return operation
    operation_id = re.sub(r"\W", "_", f"{name}_{operation.get('operationId', '')}")
    return {**operation, "tags": [name], "operationId": operation_id}
