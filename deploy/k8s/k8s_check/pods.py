"""What each pod needs: no injected variables, probes on its ops port, time to drain, and space for its journal."""

from collections.abc import Iterator
from typing import Final

from k8s_check.model import Manifests, quantity

CLOSE_CONNECTIONS_S: Final = 2.0  # idle keep-alive connections, before the drain
CLOSE_STORES_S: Final = 10.0  # journal and stores, after the drain
DEFAULT_DRAIN_S: Final = 15.0  # of SLUICE_DRAIN_S
OPS_PORT: Final = "ops"


def service_links(manifests: Manifests) -> Iterator[str]:
    """Kubernetes must not add variables such as SLUICE_EDGE_PORT, which the settings would reject."""
    for pod in manifests.pods:
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.owner}: enableServiceLinks is not false"


def drain(manifests: Manifests) -> Iterator[str]:
    """The grace period covers preStop, closing connections, the drain and closing the stores."""
    for pod in manifests.pods:
        for container in pod.containers:
            if OPS_PORT not in container.ports:
                continue
            sleep = ((container.data.get("lifecycle") or {}).get("preStop") or {}).get("sleep", {}).get("seconds")
            if sleep is None:
                yield f"{pod.owner}: has no preStop sleep, so it stops before endpoints drop it"
            drain_s = float(container.environment.get("SLUICE_DRAIN_S") or DEFAULT_DRAIN_S)
            needed_s = (sleep or 0) + CLOSE_CONNECTIONS_S + drain_s + CLOSE_STORES_S
            grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
            if grace_s < needed_s:
                yield f"{pod.owner}: terminationGracePeriodSeconds {grace_s} is below the {needed_s:g} s of a stop"


def journals(manifests: Manifests) -> Iterator[str]:
    """A journal has its own volume, larger than the journal and smaller than the pod's disk limit."""
    for pod in manifests.pods:
        for container in pod.containers:
            folder = container.environment.get("EVENTS_JOURNAL_DIR")
            if folder is None:
                continue
            names = [m["name"] for m in container.data.get("volumeMounts", ()) if m["mountPath"] == folder]
            volume = next((v for v in pod.spec.get("volumes", ()) if v["name"] in names), None)
            if volume is None:
                yield f"{pod.owner}: no volume at EVENTS_JOURNAL_DIR {folder}"
                continue
            size = quantity((volume.get("emptyDir") or {}).get("sizeLimit", "1Ti"))
            if size <= quantity(container.environment.get("EVENTS_JOURNAL_MAX_BYTES", "1Gi")):
                yield f"{pod.owner}: volume {volume['name']} is not larger than EVENTS_JOURNAL_MAX_BYTES"
            limit = ((container.data.get("resources") or {}).get("limits") or {}).get("ephemeral-storage", "0")
            if "emptyDir" in volume and size >= quantity(limit):
                yield f"{pod.owner}: volume {volume['name']} can exhaust the pod's ephemeral-storage limit"
