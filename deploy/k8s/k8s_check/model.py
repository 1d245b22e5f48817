"""Rendered resources, and the pods that their workloads create."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

Json: TypeAlias = Mapping[str, Any]

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job")


@dataclass(frozen=True)
class Resource:
    """One document."""

    data: Json

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        return str(self.data["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.data["metadata"].get("namespace", "default"))

    @property
    def spec(self) -> Json:
        return self.data.get("spec") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return self.data["metadata"].get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.data["metadata"].get("annotations") or {}

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Container:
    """One container of a pod. `environment` merges its ConfigMaps and its plain values."""

    data: Json
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def ports(self) -> dict[str | int, int]:
        """Return the port numbers by name and by number."""
        found: dict[str | int, int] = {}
        for port in self.data.get("ports", []):
            found[port["containerPort"]] = found[port.get("name", port["containerPort"])] = port["containerPort"]
        return found


@dataclass(frozen=True)
class Pod:
    """The pod template of one workload."""

    owner: Resource
    labels: Mapping[str, str]
    spec: Json
    containers: Sequence[Container]

    @property
    def namespace(self) -> str:
        return self.owner.namespace

    @property
    def ports(self) -> dict[str | int, int]:
        return {key: port for container in self.containers for key, port in container.ports.items()}


@dataclass(frozen=True)
class Manifests:
    """One overlay. `expected` are the documented Secrets that users create themselves."""

    resources: Sequence[Resource]
    expected: Sequence[Resource] = field(default=())

    def of(self, *kinds: str) -> list[Resource]:
        return [resource for resource in self.resources if resource.kind in kinds]

    def find(self, kind: str, namespace: str, name: str) -> Resource | None:
        for resource in (*self.resources, *self.expected):
            if (resource.kind, resource.namespace, resource.name) == (kind, namespace, name):
                return resource
        return None

    @cached_property
    def pods(self) -> list[Pod]:
        return [self._pod(workload) for workload in self.of(*WORKLOADS)]

    def selected(self, selector: Json | None, namespace: str) -> list[Pod]:
        """Return the pods that a label selector matches in a namespace. An empty selector matches all."""
        return [pod for pod in self.pods if pod.namespace == namespace and matches(selector, pod.labels)]

    def pod_of(self, reference: Json, namespace: str) -> Pod | None:
        """Return the pod of the workload that an autoscaler targets."""
        wanted = reference.get("kind", "Deployment"), namespace, reference["name"]
        return next((pod for pod in self.pods if (pod.owner.kind, pod.namespace, pod.owner.name) == wanted), None)

    def _pod(self, owner: Resource) -> Pod:
        template = owner.spec["template"]
        spec = template["spec"]
        containers = [
            Container(data, dict(self._environment(data, owner.namespace)))
            for data in (*spec.get("initContainers", ()), *spec["containers"])
        ]
        return Pod(owner, (template.get("metadata") or {}).get("labels") or {}, spec, containers)

    def _environment(self, container: Json, namespace: str) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", ()):
            if found := self.find("ConfigMap", namespace, source.get("configMapRef", {}).get("name", "")):
                yield from (found.data.get("data") or {}).items()
        for variable in container.get("env", ()):
            if "value" in variable:
                yield variable["name"], str(variable["value"])


def matches(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector (matchLabels, matchExpressions) selects these labels."""
    wanted: Mapping[str, str] = (selector or {}).get("matchLabels") or {}
    expressions: Sequence[Json] = (selector or {}).get("matchExpressions") or ()
    return wanted.items() <= labels.items() and all(_holds(expression, labels) for expression in expressions)


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    if expression["operator"] != "In":
        raise NotImplementedError(f"matchExpressions with {expression['operator']}")
    return labels.get(expression["key"]) in expression["values"]


def service_target(service: Resource, number: int) -> str | int | None:
    """Return the target port behind a port of a Service, or None."""
    for port in service.spec["ports"]:
        if port["port"] == number:
            target: str | int = port.get("targetPort", number)
            return target
    return None
