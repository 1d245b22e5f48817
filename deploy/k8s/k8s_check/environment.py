"""Each of our containers is started, on paper, with its environment: its own settings class must accept it."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from analyst.settings import AnalystSettings
from common.runtime.settings import Settings, SettingsError, load
from common.service import Listen
from edge_limiter.settings import EdgeSettings
from inference.settings import InferenceSettings
from k8s_check.model import Container, Manifests, Pod, Resource
from k8s_check.scaling import fewest_pods, most_pods
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
_SECRET: Final = "postgresql://user:password@host/database"  # whatever a secret file may hold
_WEB_ADDRESS: Final = "https://host/path"


def settings(manifests: Manifests) -> Iterator[str]:
    """No variable is misspelt, malformed or missing, and the service listens where the pod says."""
    for pod, container, loaded in started(manifests):
        if isinstance(loaded, SettingsError):
            yield f"{pod.owner}: {container.name} would not start: {loaded}"
        else:
            yield from _listening(pod, loaded)


def patience(manifests: Manifests) -> Iterator[str]:
    """What drains lasts longer than the longest request that it serves, with the defaults of what is not set."""
    for pod, container, loaded in started(manifests):
        if container.ports and isinstance(loaded, Settings):
            yield from (f"{pod.owner}: {problem}" for problem in cut_off(loaded))


def connections(manifests: Manifests) -> Iterator[str]:
    """What all replicas together may hold of PostgreSQL, in the middle of a rollout and of a migration, it has."""
    held = {
        str(pod.owner): each * most_pods(manifests, pod.owner)
        for pod, _, loaded in started(manifests)
        if isinstance(loaded, Settings) and (each := _connections(pod, loaded))
    }
    offered = [policy for policy in manifests.of("NetworkPolicy") if MAX_CONNECTIONS in _annotations(policy)]
    if held and not offered:
        yield f"no policy says by {MAX_CONNECTIONS} how many connections PostgreSQL has"
    for policy in offered:
        room = int(_annotations(policy)[MAX_CONNECTIONS]) - RESERVED
        if sum(held.values()) > room:
            summed = ", ".join(f"{owner} {count}" for owner, count in held.items())
            yield f"{policy}: {sum(held.values())} connections at the most, and PostgreSQL has {room} for all: {summed}"


def shares(manifests: Manifests) -> Iterator[str]:
    """An edge that starts without PostgreSQL grants no more than its share among as many as there always are."""
    for pod, _, loaded in started(manifests):
        if isinstance(loaded, EdgeSettings) and pod.ports:
            fewest = fewest_pods(manifests, pod.owner)
            if loaded.edge_replicas < fewest:
                yield f"{pod.owner}: EDGE_REPLICAS {loaded.edge_replicas} is less than the {fewest} that there are"


def cut_off(loaded: Settings) -> Iterator[str]:
    """The time limits of a service that its drain does not outlast."""
    for name in TIME_LIMITS:
        limit_s = getattr(loaded, name, 0.0)
        if limit_s >= loaded.sluice_drain_s:
            yield f"{name.upper()} {limit_s:g} outlasts SLUICE_DRAIN_S {loaded.sluice_drain_s:g}"


def start(cls: type[Settings], environment: Mapping[str, str]) -> Settings:
    """The settings that a service reads from these variables, whatever its files hold. Raises SettingsError."""
    with tempfile.TemporaryDirectory() as folder:
        given = dict(environment)
        for name in [name for name, value in given.items() if name.endswith("_FILE") and value]:
            given[name] = str(Path(folder, name))
            Path(given[name]).write_text(_WEB_ADDRESS if "WEBHOOK" in name else _SECRET)
        return load(cls, given)


def listens(loaded: object) -> Listen | None:
    """Where a service of ours does; None for anything else."""
    if isinstance(loaded, (EdgeSettings, InferenceSettings, MetricsSettings, AnalystSettings)):
        return loaded.listen()
    return None


def started(manifests: Manifests) -> Iterator[tuple[Pod, Container, Settings | SettingsError]]:
    """Each container of ours with what it makes of its environment."""
    for pod in manifests.pods:
        for container in pod.containers:
            if (cls := SETTINGS.get(_program(str(container.data["image"])))) is None:
                continue
            try:
                yield pod, container, start(cls, container.environment)
            except SettingsError as error:
                yield pod, container, error


def _connections(pod: Pod, loaded: Settings) -> int:
    """Of one pod: a migration holds one, whatever its service would."""
    return loaded.postgres_connections() if pod.owner.kind == "Deployment" else min(loaded.postgres_connections(), 1)


def _annotations(resource: Resource) -> Mapping[str, str]:
    return resource.data["metadata"].get("annotations") or {}


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
        yield f"{pod.owner}: listens on {host}, where nobody can reach it"
