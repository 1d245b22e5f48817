"""The production overlay assembled without kustomize, so that the tests of the rules run on any machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from k8s_check.model import Manifests, Resource

ROOT = Path(__file__).parent.parent
FOLDERS = ("base", "components/gateway-api", "components/keda", "components/monitoring", "overlays/prod")
REPLACED_BY_KEDA = ("HorizontalPodAutoscaler", "inference")
OPERATOR = "monitoring.coreos.com/v1"

Document = dict[str, Any]


class Overlay:
    """Documents in which a test plants errors."""

    def __init__(self, documents: list[Document], expected: list[Document]) -> None:
        self.documents, self.expected = documents, expected

    def __getitem__(self, name: str) -> Document:
        """By kind and name, such as `Deployment/edge`."""
        kind, _, name = name.partition("/")
        return next(d for d in self.documents + self.expected if (d["kind"], d["metadata"]["name"]) == (kind, name))

    def set(self, name: str, path: str, value: object) -> None:
        """Set the value at a path such as `spec.ports.0.name`; None deletes it."""
        *parents, last = path.split(".")
        place: Any = self[name]
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step.replace("|", "."), {})
        key: int | str = int(last) if isinstance(place, list) else last.replace("|", ".")
        if value is None:
            del place[key]
        elif isinstance(place, list) and key == len(place):
            place.append(value)
        else:
            place[key] = value

    def manifests(self) -> Manifests:
        return Manifests([Resource(d) for d in self.documents], [Resource(d) for d in self.expected])


def _documents(path: Path) -> Iterator[Document]:
    for document in yaml.safe_load_all(path.read_text()):
        document["metadata"]["namespace"] = "sluice"
        yield document


def _generated(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for generator in yaml.safe_load(path.read_text()).get("configMapGenerator", ()):
        yield generator["name"], dict(literal.split("=", 1) for literal in generator["literals"])


def _label(documents: list[Document]) -> None:
    """Add the labels that kustomize adds."""
    [labels] = yaml.safe_load((ROOT / "base/kustomization.yaml").read_text())["labels"]
    for document in documents:
        document["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if document["apiVersion"] == OPERATOR:
            document["metadata"]["labels"]["release"] = "kube-prometheus-stack"
        if template := document.get("spec", {}).get("template"):
            template["metadata"]["labels"].update(labels["pairs"])


def as_written() -> Overlay:
    documents, data = [], dict[str, dict[str, str]]()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.yaml")):
            if path.name == "kustomization.yaml":
                for name, literals in _generated(path):
                    data.setdefault(name, {}).update(literals)
            elif path.name != "secrets.example.yaml":
                documents += [d for d in _documents(path) if (d["kind"], d["metadata"]["name"]) != REPLACED_BY_KEDA]
    for name, literals in data.items():
        metadata = {"name": name, "namespace": "sluice"}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": literals})
    _label(documents)
    return Overlay(documents, list(_documents(ROOT / "overlays/prod/secrets.example.yaml")))
