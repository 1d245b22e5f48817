"""Where containers connect to, by their environment and secrets: it exists, and a policy lets them send there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from k8s_check.model import Container, Manifests, Pod, Resource
from k8s_check.network import pairs, ways
from k8s_check.references import file_content

REDIS_PORT: Final = 6379
POSTGRES_PORT: Final = 5432
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Destination:
    """A host and port that a pod connects to, because of the variable `name`."""

    pod: Pod
    name: str
    host: str
    port: int

    @property
    def is_inside(self) -> bool:
        """Whether the host is a Service of the pod's own namespace: all others have dots."""
        return "." not in self.host

    def __str__(self) -> str:
        return f"{self.pod.owner}: {self.name} is {self.host}:{self.port}"


def addresses(manifests: Manifests) -> Iterator[str]:
    """Every host without a dot is a Service of this namespace, and has the port."""
    for destination in destinations(manifests):
        if not destination.is_inside:
            continue
        service = _service(manifests, destination)
        if service is None:
            yield f"{destination}: there is no Service {destination.host}"
        elif _target(service, destination.port) is None:
            yield f"{destination}: Service {destination.host} has no port {destination.port}"


def routes(manifests: Manifests) -> Iterator[str]:
    """A policy lets each container send where it connects to, on that port."""
    allowed = set(pairs(manifests, "egress"))
    for destination in destinations(manifests):
        if not destination.is_inside and not _leaves(manifests, destination):
            yield f"{destination}, but no policy lets it send out on port {destination.port}"
        service = _service(manifests, destination) if destination.is_inside else None
        if service is None or (target := _target(service, destination.port)) is None:
            continue
        for receiver in manifests.selected({"matchLabels": service.spec.get("selector")}, service.namespace):
            port = receiver.ports.get(target)
            if not {(str(destination.pod.owner), str(receiver.owner), p) for p in (port, None)} & allowed:
                yield f"{destination}, but no policy lets it send to {receiver.owner} on port {port}"


def roles(manifests: Manifests) -> Iterator[str]:
    """No two services are the same user of a store outside: what leaks from one opens what is its own alone."""
    users: dict[tuple[str, str], tuple[Pod, str]] = {}
    for pod in manifests.pods:
        for container in pod.containers:
            program = str(container.data["image"]).partition("@")[0].partition(":")[0]
            for user, host in _logins(manifests, pod, container):
                first, its_program = users.setdefault((user, host), (pod, program))
                if its_program != program:
                    names = " and ".join(sorted((str(first.owner), str(pod.owner))))
                    yield f"{names} are the same user {user} of {host}"


def _logins(manifests: Manifests, pod: Pod, container: Container) -> Iterator[tuple[str, str]]:
    """User and host of the stores outside."""
    url = urlsplit(_database_url(manifests, pod, container))
    redis = container.environment.get("REDIS_HOST", "")
    for user, host in ((url.username, url.hostname), (container.environment.get("REDIS_USERNAME"), redis)):
        if "." in (host or ""):
            yield user or "default", str(host)


def encryption(manifests: Manifests) -> Iterator[str]:
    """What is said to a store outside is encrypted, and the store proves that it is the one."""
    for pod in manifests.pods:
        for container in pod.containers:
            url = urlsplit(_database_url(manifests, pod, container))
            if "." in (url.hostname or "") and parse_qs(url.query).get("sslmode") != ["verify-full"]:
                yield f"{pod.owner}: DATABASE_URL leads to {url.hostname} without sslmode=verify-full"
            if "." in container.environment.get("REDIS_HOST", "") and container.environment.get("REDIS_TLS") != "true":
                yield f"{pod.owner}: REDIS_HOST is {container.environment['REDIS_HOST']}, and REDIS_TLS is not true"


def destinations(manifests: Manifests) -> Iterator[Destination]:
    """What http:// and https:// addresses, Redis's host and port, and the secret URL of PostgreSQL name."""
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
    """Empty when it has none."""
    file = container.environment.get("DATABASE_URL_FILE")
    return (file_content(manifests, pod, container, file) or "") if file else ""


def _hosts(url: str) -> Iterator[tuple[str, int]]:
    """The hosts of a PostgreSQL URL, which may list several."""
    for place in urlsplit(url).netloc.rpartition("@")[2].split(","):
        host, _, port = place.partition(":")
        if host:
            yield host, int(port or POSTGRES_PORT)


def _service(manifests: Manifests, destination: Destination) -> Resource | None:
    return manifests.find("Service", destination.pod.namespace, destination.host)


def _target(service: Resource, number: int) -> str | int | None:
    """The pod's port, by name or number, behind a port of the Service."""
    for port in service.spec["ports"]:
        if port["port"] == number:
            target: str | int = port.get("targetPort", number)
            return target
    return None


def _leaves(manifests: Manifests, destination: Destination) -> bool:
    """Whether a policy lets the pod send out of its namespace on this port."""
    return any(
        way.direction == "egress" and "podSelector" not in way.peer and way.port in (None, destination.port)
        for way in ways(manifests)
        if destination.pod in manifests.selected(way.policy.spec.get("podSelector"), way.policy.namespace)
    )
