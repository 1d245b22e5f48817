"""Load each container's environment with the service's own settings class, and check what the values imply."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from analyst.settings import AnalystSettings
from common.runtime.settings import Settings, SettingsError, load
from common.service import Listen
from edge_limiter.settings import EdgeSettings
from inference.settings import InferenceSettings
from k8s_check.model import Container, Manifests, Pod
from k8s_check.scaling import max_pods, min_pods
from metrics.settings import MetricsSettings

SETTINGS: Final[Mapping[str, type[Settings]]] = {
    "edge-limiter": EdgeSettings,
    "inference": InferenceSettings,
    "inference-cuda": InferenceSettings,
    "metrics": MetricsSettings,
    "analyst": AnalystSettings,
}
TIME_LIMITS: Final = (
    "edge_timeout_s",
    "edge_analyze_timeout_s",
    "edge_max_timeout_s",
    "inference_timeout_s",
    "metrics_request_timeout_s",
    "analyst_timeout_s",
)
MAX_CONNECTIONS: Final = "sluice/max-connections"
RESERVED: Final = 3  # PostgreSQL's superuser_reserved_connections
_SECRET: Final = "postgresql://user:password@host/database"  # placeholder for every secret file
_WEB_ADDRESS: Final = "https://host/path"


def environment(manifests: Manifests) -> Iterator[str]:
    """No variable is misspelt, malformed or missing, and the service listens on the declared ports."""
    for pod, container, loaded in started(manifests):
        if isinstance(loaded, SettingsError):
            yield f"{pod.owner}: {container.name} does not start: {loaded}"
        else:
            yield from _listening(pod, loaded)


def time_limits(manifests: Manifests) -> Iterator[str]:
    """A service drains for longer than its longest request, defaults included."""
    for pod, container, loaded in started(manifests):
        if container.ports and isinstance(loaded, Settings):
            yield from (f"{pod.owner}: {problem}" for problem in unfinished(loaded))


def connection_budget(manifests: Manifests) -> Iterator[str]:
    """PostgreSQL has enough connections for all replicas, during a rollout and a migration."""
    held = {
        str(pod.owner): each * max_pods(manifests, pod.owner)
        for pod, _, loaded in started(manifests)
        if isinstance(loaded, Settings) and (each := _connections(pod, loaded))
    }
    offered = [policy for policy in manifests.of("NetworkPolicy") if MAX_CONNECTIONS in policy.annotations]
    if held and not offered:
        yield f"no policy has the annotation {MAX_CONNECTIONS}, the number of PostgreSQL's connections"
    for policy in offered:
        room = int(policy.annotations[MAX_CONNECTIONS]) - RESERVED
        if sum(held.values()) > room:
            summed = ", ".join(f"{owner} {count}" for owner, count in held.items())
            yield f"{policy}: up to {sum(held.values())} connections are needed, but PostgreSQL has {room}: {summed}"


def local_share(manifests: Manifests) -> Iterator[str]:
    """EDGE_REPLICAS covers the smallest number of edges, or local limits would grant too much without PostgreSQL."""
    for pod, _, loaded in started(manifests):
        if isinstance(loaded, EdgeSettings) and pod.ports:
            fewest = min_pods(manifests, pod.owner)
            if loaded.edge_replicas < fewest:
                yield f"{pod.owner}: EDGE_REPLICAS {loaded.edge_replicas} is below the minimum of {fewest} replicas"


def unfinished(loaded: Settings) -> Iterator[str]:
    """Yield the time limits that exceed the drain."""
    for name in TIME_LIMITS:
        limit_s = getattr(loaded, name, 0.0)
        if limit_s >= loaded.sluice_drain_s:
            yield f"{name.upper()} {limit_s:g} is not below SLUICE_DRAIN_S {loaded.sluice_drain_s:g}"


def start(cls: type[Settings], environment: Mapping[str, str]) -> Settings:
    """Load settings, with placeholder content for every secret file. Raises SettingsError."""
    with tempfile.TemporaryDirectory() as folder:
        given = dict(environment)
        for name in [name for name, value in given.items() if name.endswith("_FILE") and value]:
            given[name] = str(Path(folder, name))
            Path(given[name]).write_text(_WEB_ADDRESS if "WEBHOOK" in name else _SECRET)
        return load(cls, given)


def listens(loaded: object) -> Listen | None:
    """Return the addresses that one of our services listens on; None for other settings."""
    if isinstance(loaded, (EdgeSettings, InferenceSettings, MetricsSettings, AnalystSettings)):
        return loaded.listen()
    return None


def started(manifests: Manifests) -> Iterator[tuple[Pod, Container, Settings | SettingsError]]:
    """Yield each container of ours with its settings, or with the error that stops its start."""
    for pod in manifests.pods:
        for container in pod.containers:
            if (cls := SETTINGS.get(_program(str(container.data["image"])))) is None:
                continue
            try:
                yield pod, container, start(cls, container.environment)
            except SettingsError as error:
                yield pod, container, error


def _connections(pod: Pod, loaded: Settings) -> int:
    """Return the connections of one pod. A migration Job uses one."""
    return loaded.postgres_connections() if pod.owner.kind == "Deployment" else min(loaded.postgres_connections(), 1)


def _program(image: str) -> str:
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _listening(pod: Pod, loaded: Settings) -> Iterator[str]:
    listen = listens(loaded)
    if listen is None or not pod.ports:
        return
    for name, port in (("http", listen.port), ("ops", listen.ops_port)):
        if pod.ports.get(name) != port:
            yield f"{pod.owner}: port {name} is {pod.ports.get(name)}, but the service listens on {port}"
    for host in {listen.host, listen.ops_host} - {"0.0.0.0", "::"}:
        yield f"{pod.owner}: listens on {host}, which other pods cannot reach"
