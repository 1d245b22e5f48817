"""What each pod must be: restricted, measured, probed on its ops port, and given the time that its drain takes."""

from collections.abc import Iterator
from typing import Final

from k8s_check.model import Container, Manifests, Pod, quantity

GOODBYE_S: Final = 2.0  # common.http.server says goodbye to kept connections before it drains
CLOSING_S: Final = 10.0  # journals and stores, after the drain
DRAIN_S: Final = 15.0  # when SLUICE_DRAIN_S is not set
OPS_PORT: Final = "ops"
PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")


def isolation(manifests: Manifests) -> Iterator[str]:
    """No token, no variables of other Services, nothing of the host."""
    for pod in manifests.pods:
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner}: automountServiceAccountToken is not false"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.owner}: enableServiceLinks is not false"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.owner}: {field} is set"
        for volume in pod.spec.get("volumes", ()):
            if "hostPath" in volume:
                yield f"{pod.owner}: volume {volume['name']} is a folder of the host"


def namespaces(manifests: Manifests) -> Iterator[str]:
    """The namespace of every pod is among the resources, and itself refuses what is not restricted."""
    for name in sorted({pod.namespace for pod in manifests.pods}):
        found = next((namespace for namespace in manifests.of("Namespace") if namespace.name == name), None)
        labels = (found.data["metadata"].get("labels") or {}) if found else {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"namespace {name}: pod-security.kubernetes.io/enforce is not restricted"


def restricted(manifests: Manifests) -> Iterator[str]:
    """The Pod Security Standard `restricted`, and a read-only root."""
    for pod, container in _containers(manifests):
        context = {**(pod.spec.get("securityContext") or {}), **(container.data.get("securityContext") or {})}
        wrong = [field for field in ("runAsNonRoot", "readOnlyRootFilesystem") if context.get(field) is not True]
        if context.get("allowPrivilegeEscalation") is not False:
            wrong.append("allowPrivilegeEscalation")
        if context.get("runAsUser") == 0:
            wrong.append("runAsUser")
        if context.get("privileged"):
            wrong.append("privileged")
        if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            wrong.append("seccompProfile")
        if "ALL" not in (context.get("capabilities") or {}).get("drop", ()):
            wrong.append("capabilities.drop")
        if set((context.get("capabilities") or {}).get("add", ())) - {"NET_BIND_SERVICE"}:
            wrong.append("capabilities.add")
        yield from (f"{pod.owner}: {container.name}: securityContext is not restricted: {field}" for field in wrong)


def images(manifests: Manifests) -> Iterator[str]:
    """Each image has a tag that says what it is; one from a registry of yours a digest, which nobody can push again."""
    for pod, container in _containers(manifests):
        image = str(container.data["image"])
        tag = image.rpartition("/")[2].partition(":")[2]
        registry = image.partition("/")[0] if "/" in image else ""
        if "@sha256:" in image:
            continue
        if tag in ("", "latest"):
            yield f"{pod.owner}: {container.name}: image {image} has no tag of its own"
        if "." in registry or ":" in registry:
            yield f"{pod.owner}: {container.name}: image {image} has no digest"


def resources(manifests: Manifests) -> Iterator[str]:
    """CPU, memory and disk are requested; memory and disk are limited; memory is promised in full."""
    for pod, container in _containers(manifests):
        given = container.data.get("resources") or {}
        requests, limits = given.get("requests") or {}, given.get("limits") or {}
        wanted = [("requests", name, requests) for name in ("cpu", "memory", "ephemeral-storage")]
        wanted += [("limits", name, limits) for name in ("memory", "ephemeral-storage")]
        for part, name, amounts in wanted:
            if name not in amounts:
                yield f"{pod.owner}: {container.name}: resources.{part}.{name} is not set"
        for name, amount in requests.items():
            if name in limits and quantity(amount) > quantity(limits[name]):
                yield f"{pod.owner}: {container.name}: the request of {name} exceeds its limit"
            if name == "memory" and name in limits and quantity(amount) < quantity(limits[name]):
                yield f"{pod.owner}: {container.name}: the request of memory is below its limit"


def probes(manifests: Manifests) -> Iterator[str]:
    """A service is probed on its ops port; what restarts it asks no dependency; named ports exist."""
    for pod, container in _containers(manifests):
        for name in PROBES:
            probe = container.data.get(name)
            port = ((probe or {}).get("httpGet") or (probe or {}).get("tcpSocket") or {}).get("port")
            if port is not None and port not in container.ports:
                yield f"{pod.owner}: {container.name}: {name} asks port {port}, which it does not have"
            elif OPS_PORT in container.ports:
                yield from (f"{pod.owner}: {container.name}: {wrong}" for wrong in _ops_probe(name, container))


def _ops_probe(name: str, container: Container) -> Iterator[str]:
    get = (container.data.get(name) or {}).get("httpGet")
    if get is None:
        yield f"{name} is missing"
        return
    if container.ports[get["port"]] != container.ports[OPS_PORT]:
        yield f"{name} does not ask the ops port"
    wanted = "/readyz" if name == "readinessProbe" else "/livez"
    if get.get("path") != wanted:
        yield f"{name} asks {get.get('path')} instead of {wanted}"


def drain(manifests: Manifests) -> Iterator[str]:
    """Kubernetes waits longer than preStop, goodbye, drain and closing together can take."""
    for pod, container in _containers(manifests):
        if OPS_PORT not in container.ports:
            continue
        pause = ((container.data.get("lifecycle") or {}).get("preStop") or {}).get("sleep", {}).get("seconds")
        if pause is None:
            yield f"{pod.owner}: {container.name}: no preStop sleep: it stops before its address is forgotten"
        needed_s = (pause or 0) + GOODBYE_S + float(container.environment.get("SLUICE_DRAIN_S") or DRAIN_S) + CLOSING_S
        grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace_s < needed_s:
            yield f"{pod.owner}: terminationGracePeriodSeconds {grace_s} is less than the {needed_s:g} s of a stop"


def journals(manifests: Manifests) -> Iterator[str]:
    """A journal has a volume of its own that holds it, within the disk that the pod may use."""
    for pod, container in _containers(manifests):
        folder = container.environment.get("EVENTS_JOURNAL_DIR")
        if folder is None:
            continue
        names = [m["name"] for m in container.data.get("volumeMounts", ()) if m["mountPath"] == folder]
        volume = next((v for v in pod.spec.get("volumes", ()) if v["name"] in names), None)
        if volume is None:
            yield f"{pod.owner}: {container.name}: no volume at EVENTS_JOURNAL_DIR {folder}"
            continue
        room = quantity((volume.get("emptyDir") or {}).get("sizeLimit", "1Ti"))
        if room <= quantity(container.environment.get("EVENTS_JOURNAL_MAX_BYTES", "1Gi")):
            yield f"{pod.owner}: volume {volume['name']} is not larger than EVENTS_JOURNAL_MAX_BYTES"
        limit = ((container.data.get("resources") or {}).get("limits") or {}).get("ephemeral-storage", "0")
        if "emptyDir" in volume and room >= quantity(limit):
            yield f"{pod.owner}: volume {volume['name']} can fill the whole ephemeral-storage limit"


def _containers(manifests: Manifests) -> Iterator[tuple[Pod, Container]]:
    for pod in manifests.pods:
        for container in pod.containers:
            yield pod, container
