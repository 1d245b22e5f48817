"""Validate a document against the schema of its kind: Kubernetes' own, or one of a custom resource."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing import Resource as Document

from k8s_check.model import Resource

VERSIONS: Final = ("1.31", "1.34", "1.37")
"""The oldest version that docs/operations/kubernetes.md promises, one between, and the newest with a schema."""

CUSTOM_RESOURCES: Final = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproute.json",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitor.json",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrule.json",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobject.json",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "triggerauthentication.json",
}
_SCHEMAS: Final = Path(__file__).parent.parent / "schemas"


def schema_problems(resource: Resource) -> list[str]:
    """Return every violation, in all supported versions of Kubernetes."""
    name = CUSTOM_RESOURCES.get((str(resource.data.get("apiVersion")), resource.kind))
    if name is not None:
        return _violations(resource, _custom_resource(name))
    return [problem for version in VERSIONS for problem in kubernetes_problems(resource, version)]


def kubernetes_problems(resource: Resource, version: str) -> list[str]:
    """Validate strictly: unknown fields are violations. The package kubernetes-validate contains the schemas."""
    api = str(resource.data.get("apiVersion"))
    group, slash, api_version = api.partition("/")
    file = f"{resource.kind.lower()}-{group.partition('.')[0]}{'-' if slash else ''}{api_version}.json"
    try:
        validator = _kubernetes(version, file)
    except FileNotFoundError:
        return [f"schema: {resource}: Kubernetes {version} has no {resource.kind} in {api}"]
    return [f"{problem} (Kubernetes {version})" for problem in _violations(resource, validator)]


def _violations(resource: Resource, validator: Draft202012Validator) -> list[str]:
    return [
        f"schema: {resource}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(resource.data)
    ]


@cache
def _custom_resource(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((_SCHEMAS / name).read_text()))


@cache
def _kubernetes(version: str, file: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(_folder(version).joinpath(file).read_text()), registry=_definitions(version))


@cache
def _definitions(version: str) -> "Registry[Mapping[str, Any]]":
    contents = json.loads(_folder(version).joinpath("_definitions.json").read_text())
    return Document.from_contents(contents) @ Registry()


def _folder(version: str) -> Any:
    return resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
