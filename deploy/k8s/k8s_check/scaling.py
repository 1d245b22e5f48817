"""Replicas: one owner each, a metric that exists, room for an eviction, and spread over nodes and zones."""

import math
import re
from collections.abc import Iterator
from typing import Final

from k8s_check.model import Container, Json, Manifests, Pod, Resource

SCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")
HEAVIEST: Final = 100
_PATIENCE_S: Final = 60
_PROOF_S: Final = 5
_PROGRESS_S: Final = 300
_NAMESPACE: Final = re.compile(r'namespace="([^"]*)"')


def targets(manifests: Manifests) -> Iterator[str]:
    """Each scaler has its workload, alone; the workload leaves its replicas to it."""
    owned: dict[str, Resource] = {}
    for scaler in manifests.of(*SCALERS):
        pod = manifests.pod_of(scaler.spec["scaleTargetRef"], scaler.namespace)
        if pod is None:
            yield f"{scaler}: there is no {scaler.spec['scaleTargetRef']['name']} to scale"
            continue
        if str(pod.owner) in owned:
            yield f"{scaler}: {owned[str(pod.owner)]} scales {pod.owner} too, and the two fight"
        owned[str(pod.owner)] = scaler
        if "replicas" in pod.owner.spec:
            yield f"{pod.owner}: sets replicas, which {scaler} owns"
    for deployment in manifests.of("Deployment"):
        if str(deployment) not in owned and "replicas" not in deployment.spec:
            yield f"{deployment}: nobody says how many replicas there are"


def bounds(manifests: Manifests) -> Iterator[str]:
    """At least one replica, no more at the least than at the most, and no haste on the way down."""
    for scaler in manifests.of(*SCALERS):
        smallest, largest = _bounds(scaler)
        if not 1 <= smallest <= largest:
            yield f"{scaler}: from {smallest} to {largest} replicas is no range"
        if (_behavior(scaler).get("scaleDown") or {}).get("stabilizationWindowSeconds", 300) < _PATIENCE_S:
            yield f"{scaler}: scales down within a minute, and up again with the next requests"
        fallback = (scaler.spec.get("fallback") or {}).get("replicas", smallest)
        if not smallest <= fallback <= largest:
            yield f"{scaler}: fallback to {fallback} replicas is out of its own range"


def metrics(manifests: Manifests) -> Iterator[str]:
    """What is scaled by a share of a request has that request; a query asks for its own namespace."""
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        pod = manifests.pod_of(scaler.spec["scaleTargetRef"], scaler.namespace)
        for metric in scaler.spec.get("metrics", ()):
            name = (metric.get("resource") or {}).get("name")
            for container in pod.containers if pod and name else ():
                if name not in ((container.data.get("resources") or {}).get("requests") or {}):
                    yield f"{scaler}: {container.name} has no {name} request to be scaled by"
        if not scaler.spec.get("metrics"):
            yield f"{scaler}: has no metric"
    for scaler in manifests.of("ScaledObject"):
        for trigger in scaler.spec["triggers"]:
            for namespace in _NAMESPACE.findall(trigger["metadata"].get("query", "")):
                if namespace != scaler.namespace:
                    yield f"{scaler}: asks for the pods of namespace {namespace} instead of its own"


def disruptions(manifests: Manifests) -> Iterator[str]:
    """Each Deployment has one budget, which always lets one pod go and never lets all go at once."""
    covered = set()
    for budget in manifests.of("PodDisruptionBudget"):
        found = manifests.selected(budget.spec.get("selector"), budget.namespace)
        if not found:
            yield f"{budget}: its selector matches no workload"
        for pod in found:
            if str(pod.owner) in covered:
                yield f"{budget}: {pod.owner} has two budgets, which blocks every eviction"
            covered.add(str(pod.owner))
            yield from (f"{budget}: {wrong}" for wrong in _budget(budget.spec, fewest_pods(manifests, pod.owner)))
    for deployment in manifests.of("Deployment"):
        if str(deployment) not in covered:
            yield f"{deployment}: has no PodDisruptionBudget"


def spread(manifests: Manifests) -> Iterator[str]:
    """A Deployment is spread over nodes and zones, counting its own pods; a rollout never takes all replicas."""
    for pod in manifests.pods:
        if pod.owner.kind != "Deployment":
            continue
        constraints = pod.spec.get("topologySpreadConstraints", ())
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone"):
            if key not in {constraint["topologyKey"] for constraint in constraints}:
                yield f"{pod.owner}: is not spread over {key}"
        for constraint in constraints:
            if pod not in manifests.selected(constraint.get("labelSelector"), pod.namespace):
                yield f"{pod.owner}: its spread over {constraint['topologyKey']} counts other pods"
        if not any(pod in manifests.selected(term.get("labelSelector"), pod.namespace) for term in _shunned(pod)):
            yield f"{pod.owner}: does not shun nodes that have one of its pods"
        unavailable = ((pod.owner.spec.get("strategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable")
        if unavailable != 0 and not (isinstance(unavailable, int) and unavailable < fewest_pods(manifests, pod.owner)):
            yield f"{pod.owner}: a rollout may leave no replica (maxUnavailable {unavailable})"


def rollouts(manifests: Manifests) -> Iterator[str]:
    """A new pod proves itself for a while before the next is replaced, and a rollout that stands still fails.

    One whose pods take all the time that they have to start does not stand still.
    """
    for pod in manifests.pods:
        deployment = pod.owner
        if deployment.kind != "Deployment":
            continue
        ready_s = deployment.spec.get("minReadySeconds", 0)
        deadline_s = deployment.spec.get("progressDeadlineSeconds", 600)
        if ready_s < _PROOF_S:
            yield f"{deployment}: minReadySeconds {ready_s} lets a pod that ends at its first requests pass"
        slowest_s = max(_start_s(container) for container in pod.containers) + ready_s
        if not slowest_s < deadline_s <= slowest_s + _PROGRESS_S:
            within = f"within {slowest_s} and {slowest_s + _PROGRESS_S}"
            yield f"{deployment}: progressDeadlineSeconds {deadline_s} is not {within}"


def _start_s(container: Container) -> int:
    """How long its startup probe lets it take; Kubernetes' defaults for what is not said."""
    probe = container.data.get("startupProbe") or {"failureThreshold": 0}
    return int(probe.get("initialDelaySeconds", 0) + probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10))


def _shunned(pod: Pod) -> Iterator[Json]:
    """What the pod would not share its node with: as strong a preference as there is, or a prohibition."""
    rules = (pod.spec.get("affinity") or {}).get("podAntiAffinity") or {}
    terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution", ()))
    for preferred in rules.get("preferredDuringSchedulingIgnoredDuringExecution", ()):
        terms += [preferred["podAffinityTerm"]] if preferred["weight"] == HEAVIEST else []
    yield from (term for term in terms if term["topologyKey"] == "kubernetes.io/hostname")


def _budget(spec: Json, replicas: int) -> Iterator[str]:
    if ("minAvailable" in spec) == ("maxUnavailable" in spec):
        yield "needs one of minAvailable and maxUnavailable"
        return
    if "maxUnavailable" in spec:
        if spec["maxUnavailable"] in (0, "0%"):
            yield "never lets a pod go, so that no node can be drained"
        elif isinstance(spec["maxUnavailable"], int) and spec["maxUnavailable"] >= replicas > 1:
            yield f"lets all {replicas} pods go at once"
    elif isinstance(spec["minAvailable"], int) and spec["minAvailable"] >= replicas:
        yield f"wants {spec['minAvailable']} of {replicas} pods, so that no node can be drained"


def most_pods(manifests: Manifests, workload: Resource) -> int:
    """How many there are at the most, with those that a rollout adds."""
    most = _range(manifests, workload)[1]
    if workload.kind != "Deployment":
        return most
    surge = ((workload.spec.get("strategy") or {}).get("rollingUpdate") or {}).get("maxSurge", "25%")
    return most + (surge if isinstance(surge, int) else math.ceil(most * int(surge.rstrip("%")) / 100))


def fewest_pods(manifests: Manifests, workload: Resource) -> int:
    return _range(manifests, workload)[0]


def _range(manifests: Manifests, workload: Resource) -> tuple[int, int]:
    """The fewest and the most replicas that its scaler, or it itself, asks for."""
    for scaler in manifests.of(*SCALERS):
        pod = manifests.pod_of(scaler.spec["scaleTargetRef"], scaler.namespace)
        if pod is not None and pod.owner == workload:
            return _bounds(scaler)
    replicas = int(workload.spec.get("replicas", 1))
    return replicas, replicas


def _bounds(scaler: Resource) -> tuple[int, int]:
    if scaler.kind == "ScaledObject":
        return int(scaler.spec.get("minReplicaCount", 0)), int(scaler.spec.get("maxReplicaCount", 100))
    return int(scaler.spec.get("minReplicas", 1)), int(scaler.spec["maxReplicas"])


def _behavior(scaler: Resource) -> Json:
    spec = scaler.spec
    if scaler.kind == "ScaledObject":
        spec = (spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    behavior: Json = spec.get("behavior") or {}
    return behavior
