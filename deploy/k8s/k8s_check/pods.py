"""What each pod needs: no injected variables, time to drain, and space for its journal."""

from collections.abc import Iterator
from typing import Final

from k8s_check.model import Manifests

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
    """The volume of a journal is larger than the journal, and the pod's disk limit larger than the volume."""
    for pod in manifests.pods:
        for container in pod.containers:
            if "EVENTS_JOURNAL_DIR" not in container.environment:
                continue
            mounts = {mount["mountPath"]: mount["name"] for mount in container.data.get("volumeMounts", ())}
            volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
            volume = volumes.get(mounts.get(container.environment["EVENTS_JOURNAL_DIR"]), {})
            size = binary_quantity((volume.get("emptyDir") or {}).get("sizeLimit", "0Gi"))
            limit = container.data["resources"]["limits"]["ephemeral-storage"]
            most = int(container.environment.get("EVENTS_JOURNAL_MAX_BYTES", 2**30))
            if not most < size < binary_quantity(limit):
                yield f"{pod.owner}: its journal of {most} bytes, volume and ephemeral-storage limit do not increase"


def binary_quantity(text: str) -> int:
    """Parse a quantity such as 512Mi. Raises KeyError for other units."""
    return int(text[:-2]) * {"Mi": 2**20, "Gi": 2**30}[text[-2:]]
