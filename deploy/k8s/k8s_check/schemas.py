"""Each document against the schema of its kind: Kubernetes' own for every version, and those of operators."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing import Resource as Document

from k8s_check.model import Json, Resource

VERSIONS: Final = ("1.35", "1.36", "1.37")
OPERATORS: Final = {
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitor.json",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrule.json",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobject.json",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "triggerauthentication.json",
}
_OURS: Final = Path(__file__).parent.parent / "schemas"


def operator_problems(resource: Resource) -> list[str] | None:
    """None for a kind that no operator brings."""
    name = OPERATORS.get((str(resource.data.get("apiVersion")), resource.kind))
    return None if name is None else _problems(resource, _operator(name))


def kubernetes_problems(resource: Resource, version: str) -> list[str]:
    """Strictly: unknown fields are errors too. Needs the package kubernetes-validate, which holds the schemas."""
    api = str(resource.data.get("apiVersion"))
    group, slash, api_version = api.partition("/")
    file = f"{resource.kind.lower()}-{group.partition('.')[0]}{'-' if slash else ''}{api_version}.json"
    try:
        validator = _kubernetes(version, file)
    except FileNotFoundError:
        return [f"schema: {resource}: Kubernetes {version} has no {resource.kind} in {api}"]
    return [f"{problem} (Kubernetes {version})" for problem in _problems(resource, validator)]


def _problems(resource: Resource, validator: Draft202012Validator) -> list[str]:
    return [
        f"schema: {resource}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(resource.data)
    ]


@cache
def _operator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((_OURS / name).read_text()))


@cache
def _kubernetes(version: str, file: str) -> Draft202012Validator:
    schema: Json = json.loads(_folder(version).joinpath(file).read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> "Registry[Mapping[str, Any]]":
    contents = json.loads(_folder(version).joinpath("_definitions.json").read_text())
    return Document.from_contents(contents) @ Registry()


def _folder(version: str) -> Any:
    return resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
