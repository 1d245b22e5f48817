"""Routes from outside and Prometheus: their ports exist, policies let them in, and time limits fit the edge's."""

import re
from collections.abc import Iterator
from typing import Final

from edge_limiter.settings import EdgeSettings
from k8s_check.model import Json, Manifests, Resource, service_target
from k8s_check.network import accepts_other_namespaces
from k8s_check.settings import started

STREAM: Final = "/metrics/stream"
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def routes_in(manifests: Manifests) -> Iterator[str]:
    """Every backend of an HTTPRoute is a port of a Service whose pods accept other namespaces."""
    for route, name, wanted in _backends(manifests):
        service = manifests.find("Service", route.namespace, name)
        if service is None:
            yield f"{route}: there is no Service {name}"
            continue
        target = service_target(service, wanted)
        if target is None:
            yield f"{route}: Service {name} has no port {wanted}"
            continue
        for pod in manifests.selected({"matchLabels": service.spec.get("selector")}, service.namespace):
            if not accepts_other_namespaces(manifests, pod, pod.ports.get(target, target)):
                yield f"{route}: no policy lets another namespace reach {pod.owner} on port {target}"


def monitors(manifests: Manifests) -> Iterator[str]:
    """A PodMonitor selects every pod with an ops port, by a label that becomes `job`, and may reach the port."""
    for monitor in manifests.of("PodMonitor"):
        found = manifests.selected(monitor.spec["selector"], monitor.namespace)
        for pod in manifests.pods:
            if "ops" in pod.ports and pod not in found:
                yield f"{monitor}: does not select {pod.owner}"
        for pod in found:
            if monitor.spec.get("jobLabel") not in pod.labels:
                yield f"{monitor}: {pod.owner} has no label {monitor.spec.get('jobLabel')}"
            for endpoint in monitor.spec["podMetricsEndpoints"]:
                port = pod.ports.get(endpoint["port"])
                if port is None:
                    yield f"{monitor}: {pod.owner} has no port {endpoint['port']}"
                elif not accepts_other_namespaces(manifests, pod, port):
                    yield f"{monitor}: no policy lets another namespace reach {pod.owner} on port {port}"


def route_timeouts(manifests: Manifests) -> Iterator[str]:
    """A Gateway waits longer than the edge's longest request, and without limit on the live stream."""
    edges = [loaded for pod, _, loaded in started(manifests) if pod.ports and isinstance(loaded, EdgeSettings)]
    longest_s = max((edge.edge_max_timeout_s for edge in edges), default=0)
    for route in manifests.of("HTTPRoute"):
        rules = route.spec["rules"]
        if not any(_matches_exactly(rule, STREAM) and _timeout_s(rule) == 0 for rule in rules):
            yield f"{route}: no rule for {STREAM} without a time limit (timeouts.request: 0s)"
        for rule in rules:
            timeout_s = _timeout_s(rule)
            if timeout_s is None or 0 < timeout_s <= longest_s:
                yield f"{route}: timeouts.request {timeout_s} is not above EDGE_MAX_TIMEOUT_S {longest_s:g}"


def _backends(manifests: Manifests) -> Iterator[tuple[Resource, str, int]]:
    """Yield each route with the name and port of a Service behind it."""
    for route in manifests.of("HTTPRoute"):
        for rule in route.spec["rules"]:
            for backend in rule["backendRefs"]:
                yield route, backend["name"], backend["port"]


def _matches_exactly(rule: Json, path: str) -> bool:
    return {"type": "Exact", "value": path} in [match.get("path") for match in rule.get("matches", ())]


def _timeout_s(rule: Json) -> float | None:
    """Parse a Gateway API duration such as 1m5s. None if the rule has none."""
    written = (rule.get("timeouts") or {}).get("request")
    if written is None:
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", written))
