"""Services and monitors find their pods, and nothing is there twice."""

from collections.abc import Iterator

from k8s_check.model import WORKLOADS, Manifests, matches


def selectors(manifests: Manifests) -> Iterator[str]:
    """A workload selects the pods that it makes, and no other workload's."""
    for pod in manifests.pods:
        selector = pod.owner.spec.get("selector")
        if selector is None:
            continue
        if not matches(selector, pod.labels):
            yield f"{pod.owner}: its selector does not match its own pods"
        for other in manifests.selected(selector, pod.namespace):
            if other.owner != pod.owner:
                yield f"{pod.owner}: its selector matches the pods of {other.owner} too"


def services(manifests: Manifests) -> Iterator[str]:
    """A Service selects one workload, whose port it names; one without an address of its own cannot translate ports."""
    for service in manifests.of("Service"):
        found = manifests.selected({"matchLabels": service.spec.get("selector") or {}}, service.namespace)
        if not service.spec.get("selector") or not found:
            yield f"{service}: its selector matches no workload"
            continue
        if len(found) > 1:
            yield f"{service}: its selector matches {', '.join(str(pod.owner) for pod in found)}"
        for port in service.spec["ports"]:
            target = port.get("targetPort", port["port"])
            if target not in found[0].ports:
                yield f"{service}: targetPort {target} is no port of {found[0].owner}"
            elif service.spec.get("clusterIP") == "None" and found[0].ports[target] != port["port"]:
                yield f"{service}: is headless, so port {port['port']} must be the pod's own, {found[0].ports[target]}"


def monitors(manifests: Manifests) -> Iterator[str]:
    """A PodMonitor selects pods that have the port, and the label that becomes `job`."""
    for monitor in manifests.of("PodMonitor"):
        found = manifests.selected(monitor.spec["selector"], monitor.namespace)
        if not found:
            yield f"{monitor}: its selector matches no workload"
        for pod in found:
            for endpoint in monitor.spec["podMetricsEndpoints"]:
                if endpoint["port"] not in pod.ports:
                    yield f"{monitor}: {pod.owner} has no port {endpoint['port']}"
            if monitor.spec.get("jobLabel") not in pod.labels:
                yield f"{monitor}: {pod.owner} has no label {monitor.spec.get('jobLabel')}"
        for pod in manifests.pods:
            if "ops" in pod.ports and pod not in found:
                yield f"{monitor}: leaves {pod.owner} out"


def duplicates(manifests: Manifests) -> Iterator[str]:
    """No resource is there twice, and everything of a workload is in one namespace."""
    seen = set()
    for resource in manifests.resources:
        key = resource.kind, resource.namespace, resource.name
        if key in seen:
            yield f"{resource}: is there twice"
        seen.add(key)
    namespaces = {resource.namespace for resource in manifests.of(*WORKLOADS, "Service")}
    if len(namespaces) > 1:
        yield f"workloads and Services are spread over the namespaces {', '.join(sorted(namespaces))}"
