"""Hosts that settings and secrets name: they exist, and policies allow them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from k8s_check.configuration import file_content
from k8s_check.model import Container, Manifests, Pod, Resource, service_target
from k8s_check.network import pairs, paths

REDIS_PORT: Final = 6379
POSTGRES_PORT: Final = 5432
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Destination:
    """A host and port that a pod connects to, and the variable that names it."""

    pod: Pod
    name: str
    host: str
    port: int

    @property
    def is_inside(self) -> bool:
        """Return whether the host is a Service of the pod's own namespace, which has no dots."""
        return "." not in self.host

    def __str__(self) -> str:
        return f"{self.pod.owner}: {self.name} is {self.host}:{self.port}"


def services(manifests: Manifests) -> Iterator[str]:
    """A host without dots is a Service of this namespace with this port."""
    for destination in destinations(manifests):
        if not destination.is_inside:
            continue
        service = _service(manifests, destination)
        if service is None:
            yield f"{destination}: there is no Service {destination.host}"
        elif service_target(service, destination.port) is None:
            yield f"{destination}: Service {destination.host} has no port {destination.port}"


def egress(manifests: Manifests) -> Iterator[str]:
    """A policy allows each container's connections."""
    allowed = set(pairs(manifests, "egress"))
    for destination in destinations(manifests):
        if not destination.is_inside and not _may_leave(manifests, destination):
            yield f"{destination}, but no policy allows egress on port {destination.port}"
        service = _service(manifests, destination) if destination.is_inside else None
        if service is None or (target := service_target(service, destination.port)) is None:
            continue
        for receiver in manifests.selected({"matchLabels": service.spec.get("selector")}, service.namespace):
            port = receiver.ports.get(target)
            if not {(str(destination.pod.owner), str(receiver.owner), p) for p in (port, None)} & allowed:
                yield f"{destination}, but no policy allows egress to {receiver.owner} on port {port}"


def destinations(manifests: Manifests) -> Iterator[Destination]:
    """Yield the hosts of URLs, of Redis and of PostgreSQL."""
    for pod in manifests.pods:
        for container in pod.containers:
            for name, host, port in _named(manifests, pod, container):
                yield Destination(pod, name, host, port)


def _named(manifests: Manifests, pod: Pod, container: Container) -> Iterator[tuple[str, str, int]]:
    environment = container.environment
    for name, value in environment.items():
        if name.endswith("_FILE"):
            value = file_content(manifests, pod, container, value) or ""
        url = urlsplit(value)
        if url.scheme in PORTS:
            yield name.removesuffix("_FILE"), str(url.hostname), url.port or PORTS[url.scheme]
    if "REDIS_HOST" in environment:
        yield "REDIS_HOST", environment["REDIS_HOST"], int(environment.get("REDIS_PORT") or REDIS_PORT)
    for host, port in _hosts(_database_url(manifests, pod, container)):
        yield "the host in DATABASE_URL", host, port


def _database_url(manifests: Manifests, pod: Pod, container: Container) -> str:
    """Return the URL from the mounted Secret, or an empty string."""
    file = container.environment.get("DATABASE_URL_FILE")
    return (file_content(manifests, pod, container, file) or "") if file else ""


def _hosts(url: str) -> Iterator[tuple[str, int]]:
    """Yield the hosts and ports of a PostgreSQL URL, which may list several."""
    for place in urlsplit(url).netloc.rpartition("@")[2].split(","):
        host, _, port = place.partition(":")
        if host:
            yield host, int(port or POSTGRES_PORT)


def _service(manifests: Manifests, destination: Destination) -> Resource | None:
    return manifests.find("Service", destination.pod.namespace, destination.host)


def _may_leave(manifests: Manifests, destination: Destination) -> bool:
    """Return whether a policy lets the pod send out of its namespace on this port."""
    return any(
        path.direction == "egress" and "podSelector" not in path.peer and path.port in (None, destination.port)
        for path in paths(manifests)
        if destination.pod in manifests.selected(path.policy.spec.get("podSelector"), path.policy.namespace)
    )
