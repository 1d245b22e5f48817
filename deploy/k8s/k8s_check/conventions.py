"""Names and labels that an installation, an upgrade and the Prometheus operator depend on."""

from collections.abc import Iterator
from typing import Final

from k8s_check.model import Manifests

PREFIX: Final = "sluice-"
LABELS: Final = ("name", "part-of", "instance", "version")
OPERATOR_LABEL: Final = "release"


def labels(manifests: Manifests) -> Iterator[str]:
    """Pods of ours carry the recommended labels, version and instance included."""
    for pod in manifests.pods:
        if pod.owner.kind in ("Deployment", "Job"):
            for name in LABELS:
                if f"app.kubernetes.io/{name}" not in pod.labels:
                    yield f"{pod.owner}: its pods have no label app.kubernetes.io/{name}"


def service_names(manifests: Manifests) -> Iterator[str]:
    """A Service in front of our pods has our prefix: names such as `metrics` collide in a shared namespace."""
    for service in manifests.of("Service"):
        selected = manifests.selected({"matchLabels": service.spec.get("selector")}, service.namespace)
        if any("ops" in pod.ports for pod in selected) and not service.name.startswith(PREFIX):
            yield f"{service}: its name does not begin with {PREFIX}"


def migration_names(manifests: Manifests) -> Iterator[str]:
    """A Job is named by version: its template is immutable, so the next release needs another name."""
    for job in manifests.of("Job"):
        version = job.labels.get("app.kubernetes.io/version", "")
        if not version or not job.name.endswith("-" + version.replace(".", "-")):
            yield f"{job}: its name does not end with its version {version}"


def operator_labels(manifests: Manifests) -> Iterator[str]:
    """kube-prometheus-stack ignores monitors and rules without the label of its Helm release."""
    for resource in manifests.of("PodMonitor", "PrometheusRule"):
        if OPERATOR_LABEL not in resource.labels:
            yield f"{resource}: has no label {OPERATOR_LABEL}, so kube-prometheus-stack ignores it"


def node_selectors(manifests: Manifests) -> Iterator[str]:
    """GPU pods are placed by their resource; NVIDIA's node labels exist only with GPU Feature Discovery."""
    for pod in manifests.pods:
        for label in pod.spec.get("nodeSelector") or ():
            if label.startswith("nvidia.com/"):
                yield f"{pod.owner}: nodeSelector {label} needs GPU Feature Discovery"
