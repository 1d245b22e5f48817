"""Replicas: one owner each, a queue metric that can't silently read zero, and rollouts that can finish."""

import math
import re
from collections.abc import Iterator
from typing import Final

from k8s_check.model import Json, Manifests, Pod, Resource

SCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")
GPU: Final = "nvidia.com/gpu"
GPU_BATCH_TOKENS: Final = 16_384
_NAMESPACE: Final = re.compile(r'namespace="([^"]*)"')


def queue_scaling(manifests: Manifests) -> Iterator[str]:
    """KEDA queries its own namespace, falls back when the metric is missing, and counts in whole batches."""
    for scaler in manifests.of("ScaledObject"):
        fewest, most = _bounds(scaler)
        if not 1 <= fewest <= (scaler.spec.get("fallback") or {}).get("replicas", 0) <= most:
            yield f"{scaler}: needs fallback replicas between {fewest} and {most}, and at least one replica"
        for trigger in scaler.spec["triggers"]:
            metadata = trigger["metadata"]
            if metadata.get("ignoreNullValues") != "false":
                yield f'{scaler}: without ignoreNullValues: "false" a missing metric counts as 0, not as a failure'
            for namespace in _NAMESPACE.findall(metadata.get("query", "")):
                if namespace != scaler.namespace:
                    yield f"{scaler}: queries another namespace, {namespace}"
            if _has_gpu(manifests.pod_of(scaler.spec["scaleTargetRef"], scaler.namespace)):
                if float(metadata["threshold"]) < GPU_BATCH_TOKENS:
                    yield f"{scaler}: threshold {metadata['threshold']} is below a GPU's batch of {GPU_BATCH_TOKENS}"


def max_pods(manifests: Manifests, workload: Resource) -> int:
    """Return the largest number of pods, those that a rollout adds included."""
    most = _range(manifests, workload)[1]
    if workload.kind != "Deployment":
        return most
    surge = ((workload.spec.get("strategy") or {}).get("rollingUpdate") or {}).get("maxSurge", "25%")
    return most + (surge if isinstance(surge, int) else math.ceil(most * int(surge.rstrip("%")) / 100))


def min_pods(manifests: Manifests, workload: Resource) -> int:
    return _range(manifests, workload)[0]


def _has_gpu(pod: Pod | None) -> bool:
    return any(
        GPU in ((container.data.get("resources") or {}).get("limits") or {})
        for container in (pod.containers if pod else ())
    )


def _range(manifests: Manifests, workload: Resource) -> tuple[int, int]:
    for scaler in manifests.of(*SCALERS):
        pod = manifests.pod_of(scaler.spec["scaleTargetRef"], scaler.namespace)
        if pod is not None and pod.owner == workload:
            return _bounds(scaler)
    replicas = int(workload.spec.get("replicas", 1))
    return replicas, replicas


def _bounds(scaler: Resource) -> tuple[int, int]:
    spec: Json = scaler.spec
    if scaler.kind == "ScaledObject":
        return int(spec.get("minReplicaCount", 0)), int(spec.get("maxReplicaCount", 100))
    return int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
