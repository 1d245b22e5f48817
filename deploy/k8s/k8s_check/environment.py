"""Each of our containers is started, on paper, with its environment: its own settings class must accept it."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from analyst.settings import AnalystSettings
from common.settings import Settings, SettingsError, load
from edge_limiter.settings import EdgeSettings
from inference.settings import InferenceSettings
from k8s_check.model import Manifests, Pod
from metrics.settings import MetricsSettings

SETTINGS: Final[Mapping[str, type[Settings]]] = {
    "edge-limiter": EdgeSettings,
    "inference": InferenceSettings,
    "inference-cuda": InferenceSettings,
    "metrics": MetricsSettings,
    "analyst": AnalystSettings,
}
_SECRET: Final = "postgresql://user:password@host/database"  # whatever a secret file may hold


def settings(manifests: Manifests) -> Iterator[str]:
    """No variable is misspelt, malformed or missing, and the service listens where the pod says."""
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text(_SECRET)
        for pod in manifests.pods:
            for container in pod.containers:
                if (cls := SETTINGS.get(_program(str(container.data["image"])))) is None:
                    continue
                given = {
                    name: str(secret) if name.endswith("_FILE") else value
                    for name, value in container.environment.items()
                }
                try:
                    loaded = load(cls, given)
                except SettingsError as error:
                    yield f"{pod.owner}: {container.name} would not start: {error}"
                else:
                    yield from _listening(pod, loaded)


def _program(image: str) -> str:
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _listening(pod: Pod, loaded: Settings) -> Iterator[str]:
    if not isinstance(loaded, (EdgeSettings, InferenceSettings, MetricsSettings, AnalystSettings)) or not pod.ports:
        return
    listen = loaded.listen()
    for name, port in (("http", listen.port), ("ops", listen.ops_port)):
        if pod.ports.get(name) != port:
            yield f"{pod.owner}: port {name} is {pod.ports.get(name)}, but the service listens on {port}"
    if listen.host not in ("0.0.0.0", "::"):
        yield f"{pod.owner}: listens on {listen.host}, where nobody can reach it"
