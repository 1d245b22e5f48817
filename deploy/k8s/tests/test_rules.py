"""Each rule is silent about the production overlay, and finds the errors planted in it."""

from collections.abc import Callable
from typing import Any

import pytest
from written import Overlay

from k8s_check.model import Manifests
from k8s_check.rules import RULES, problems

POD = "spec.template.spec"
BOX = f"{POD}.containers.0"
SHUNNED = f"{POD}.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.0"
EDGE, INFERENCE, METRICS = "Deployment/edge", "Deployment/inference", "Deployment/metrics"
HPA, SCALED, PDB = "HorizontalPodAutoscaler/edge", "ScaledObject/inference", "PodDisruptionBudget/edge"
POLICY = "NetworkPolicy"
NAME = "app|kubernetes|io/name"
IPV6: list[tuple[str, str, object]] = [
    ("ConfigMap/sluice", "data.SLUICE_OPS_HOST", "::"),
    *((f"ConfigMap/{name}", f"data.{name.upper()}_HOST", "::") for name in ("edge", "inference", "metrics", "analyst")),
]

BY_NAME = {rule.__name__: rule for rule in RULES}

# rule, what it says, and the edits that plant the error
PLANTED: list[tuple[str, str, list[tuple[str, str, object]]]] = [
    ("duplicates", "Service/metrics: is there twice", [("Service/analyst", "metadata.name", "metrics")]),
    ("duplicates", "spread over the namespaces", [("Service/analyst", "metadata.namespace", "default")]),
    ("selectors", "does not match its own pods", [(EDGE, f"spec.selector.matchLabels.{NAME}", "egde")]),
    ("selectors", "matches the pods of Deployment/metrics too", [
        (EDGE, "spec.selector.matchLabels", {"tier": "web"}),
        (EDGE, "spec.template.metadata.labels.tier", "web"), (METRICS, "spec.template.metadata.labels.tier", "web")]),
    ("services", "its selector matches no workload", [("Service/edge", f"spec.selector.{NAME}", "egde")]),
    ("services", "its selector matches no workload", [("Service/edge", "spec.selector", None)]),
    ("services", "targetPort web is no port of Deployment/edge", [("Service/edge", "spec.ports.0.targetPort", "web")]),
    ("services", "targetPort 80 is no port", [("Service/edge", "spec.ports.0.targetPort", None)]),
    ("services", "is headless, so port 80 must be the pod's own, 8001", [
        ("Service/inference", "spec.ports.0.port", 80)]),
    ("services", "its selector matches Deployment/inference, Deployment/metrics", [
        (METRICS, "spec.template.metadata.labels.tier", "web"),
        (INFERENCE, "spec.template.metadata.labels.tier", "web"),
        ("Service/edge", "spec.selector", {"tier": "web"})]),
    ("addresses", "there is no Service inferense", [
        ("ConfigMap/edge", "data.EDGE_UPSTREAM_INFERENCE", "http://inferense:8001")]),
    ("addresses", "Service metrics has no port 80", [
        ("ConfigMap/edge", "data.EDGE_UPSTREAM_METRICS", "http://metrics")]),
    ("addresses", "REDIS_HOST is vakley:6379: there is no Service vakley", [
        ("ConfigMap/sluice", "data.REDIS_HOST", "vakley")]),
    ("addresses", "the host in DATABASE_URL is pgbouncer:6432: there is no Service pgbouncer", [
        ("Secret/sluice-postgres-edge", "stringData.database-url", "postgresql://sluice:x@pgbouncer:6432/sluice")]),
    ("addresses", "there is no Service second", [
        ("Secret/sluice-postgres-edge", "stringData.database-url", "postgresql://s:x@a.example.com:5432,second/sluice")]),
    ("monitors", "has no port metrics", [("PodMonitor/sluice", "spec.podMetricsEndpoints.0.port", "metrics")]),
    ("monitors", "leaves Deployment/analyst out", [
        ("PodMonitor/sluice", "spec.selector.matchExpressions.0.values", ["edge", "inference", "metrics"])]),
    ("monitors", "has no label app", [("PodMonitor/sluice", "spec.jobLabel", "app")]),
    ("monitors", "matches no workload", [("PodMonitor/sluice", "spec.selector.matchExpressions.0.values", ["egde"])]),
    ("configuration", "there is no ConfigMap egde", [(EDGE, f"{BOX}.envFrom.1.configMapRef.name", "egde")]),
    ("configuration", "there is no Secret sluice-redis-edge", [("Secret/sluice-redis-edge", "metadata.name", "redis")]),
    ("configuration", "Secret sluice-edge has no key token", [
        (EDGE, f"{BOX}.env.0", {"name": "A", "valueFrom": {"secretKeyRef": {"name": "sluice-edge", "key": "token"}}})]),
    ("configuration", "there is no Secret other", [
        (EDGE, f"{BOX}.env.0", {"name": "A", "valueFrom": {"secretKeyRef": {"name": "other", "key": "a"}}})]),
    ("accounts", "there is no ServiceAccount edge", [("ServiceAccount/edge", "metadata.name", "other")]),
    ("accounts", "runs as the default ServiceAccount", [(EDGE, f"{POD}.serviceAccountName", None)]),
    ("volumes", "volumeMount jornal has no volume", [(EDGE, f"{BOX}.volumeMounts.5.name", "jornal")]),
    ("volumes", "volume tmp is never mounted", [(EDGE, f"{BOX}.volumeMounts.4", None)]),
    ("volumes", "which the volume sluice-postgres does not hold", [
        (EDGE, f"{BOX}.env.0.value", "/run/secrets/sluice-postgres/database")]),
    ("volumes", "where nothing is mounted", [(EDGE, f"{BOX}.env.0.value", "/run/secrets/database-url")]),
    ("volumes", "which the volume sluice-edge does not hold", [("Secret/sluice-edge", "stringData", {"token": "x"})]),
    ("volumes", "which the volume sluice-postgres does not hold", [
        (EDGE, f"{POD}.volumes.0.secret.items.0.path", "url")]),
    ("items", "volume sluice-redis mounts every key of its Secret", [(EDGE, f"{POD}.volumes.1.secret.items", None)]),
    ("backends", "there is no Service egde", [
        ("Ingress/edge", "spec.rules.0.http.paths.0.backend.service.name", "egde")]),
    ("backends", "Service edge has no port https", [
        ("Ingress/edge", "spec.rules.0.http.paths.0.backend.service.port.name", "https")]),
    ("certificates", "there is no Secret tls, and no issuer", [("Ingress/edge", "spec.tls.0.secretName", "tls")]),
    ("certificates", "host other.example.com has no certificate", [
        ("Ingress/edge", "spec.rules.0.host", "other.example.com")]),
    ("certificates", "host None has no certificate", [("Ingress/edge", "spec.rules.0.host", None)]),
    ("certificates", "Secret sluice-edge is no cert", [("Ingress/edge", "spec.tls.0.secretName", "sluice-edge")]),
    ("certificates", "is no certificate with its key", [("Secret/sluice-tls", "stringData.tls|key", None)]),
    ("isolation", "automountServiceAccountToken", [(EDGE, f"{POD}.automountServiceAccountToken", None)]),
    ("isolation", "enableServiceLinks", [("Job/migrate-edge", f"{POD}.enableServiceLinks", True)]),
    ("isolation", "hostNetwork", [(EDGE, f"{POD}.hostNetwork", True)]),
    ("isolation", "is a folder of the host", [(EDGE, f"{POD}.volumes.4", {"name": "tmp", "hostPath": {"path": "/"}})]),
    ("namespaces", "namespace sluice: pod-security", [
        ("Namespace/sluice", "metadata.labels.pod-security|kubernetes|io/enforce", "baseline")]),
    ("namespaces", "namespace sluice: pod-security", [("Namespace/sluice", "metadata.name", "other")]),
    ("restricted", "runAsNonRoot", [(EDGE, f"{POD}.securityContext.runAsNonRoot", None)]),
    ("restricted", "runAsUser", [(EDGE, f"{BOX}.securityContext.runAsUser", 0)]),
    ("restricted", "seccompProfile", [(EDGE, f"{POD}.securityContext.seccompProfile.type", "Unconfined")]),
    ("restricted", "allowPrivilegeEscalation", [(EDGE, f"{BOX}.securityContext.allowPrivilegeEscalation", None)]),
    ("restricted", "readOnlyRootFilesystem", [(EDGE, f"{BOX}.securityContext.readOnlyRootFilesystem", False)]),
    ("restricted", "capabilities.drop", [(EDGE, f"{BOX}.securityContext.capabilities", {"drop": ["NET_RAW"]})]),
    ("restricted", "capabilities.add", [(EDGE, f"{BOX}.securityContext.capabilities.add", ["SYS_ADMIN"])]),
    ("restricted", "privileged", [(EDGE, f"{BOX}.securityContext.privileged", True)]),
    ("images", "has no tag of its own", [(EDGE, f"{BOX}.image", "registry.example.com:5000/sluice/edge-limiter")]),
    ("images", "has no tag of its own", [(EDGE, f"{BOX}.image", "sluice/edge-limiter:latest")]),
    ("images", "has no digest", [(EDGE, f"{BOX}.image", "registry.example.com/sluice/edge-limiter:0.1.0")]),
    ("resources", "limits.memory is not set", [(EDGE, f"{BOX}.resources.limits.memory", None)]),
    ("resources", "requests.cpu is not set", [(EDGE, f"{BOX}.resources.requests.cpu", None)]),
    ("resources", "the request of memory exceeds its limit", [(EDGE, f"{BOX}.resources.requests.memory", "1Gi")]),
    ("resources", "the request of memory is below its limit", [(EDGE, f"{BOX}.resources.requests.memory", "256Mi")]),
    ("probes", "livenessProbe is missing", [(EDGE, f"{BOX}.livenessProbe", None)]),
    ("probes", "asks port opps, which it does not have", [(EDGE, f"{BOX}.readinessProbe.httpGet.port", "opps")]),
    ("probes", "readinessProbe does not ask the ops port", [(EDGE, f"{BOX}.readinessProbe.httpGet.port", "http")]),
    ("probes", "asks /readyz instead of /livez", [(EDGE, f"{BOX}.livenessProbe.httpGet.path", "/readyz")]),
    ("probes", "startupProbe asks /readyz instead of /livez", [(EDGE, f"{BOX}.startupProbe.httpGet.path", "/readyz")]),
    ("drain", "is less than the 82 s", [(EDGE, f"{POD}.terminationGracePeriodSeconds", 60)]),
    ("drain", "is less than the 117 s", [("ConfigMap/edge", "data.SLUICE_DRAIN_S", "100")]),
    ("drain", "no preStop sleep", [(EDGE, f"{BOX}.lifecycle", None)]),
    ("patience", "EDGE_ANALYZE_TIMEOUT_S 60 outlasts SLUICE_DRAIN_S 30", [
        ("ConfigMap/edge", "data.SLUICE_DRAIN_S", "30")]),
    ("patience", "Deployment/edge: EDGE_MAX_TIMEOUT_S 120 outlasts SLUICE_DRAIN_S 65", [
        ("ConfigMap/edge", "data.EDGE_MAX_TIMEOUT_S", None)]),
    ("patience", "Deployment/analyst: ANALYST_TIMEOUT_S 60 outlasts SLUICE_DRAIN_S 15", [
        ("ConfigMap/analyst", "data.SLUICE_DRAIN_S", None)]),
    ("connections", "153 connections at the most, and PostgreSQL has 97 for all: Deployment/analyst 10, ", [
        (f"{POLICY}/to-postgres", "metadata.annotations", {"sluice/max-connections": "100"})]),
    ("connections", "213 connections at the most", [("HorizontalPodAutoscaler/analyst", "spec.maxReplicas", 34)]),
    ("connections", "237 connections at the most", [("ConfigMap/metrics", "data.METRICS_CONNECTIONS", "20")]),
    ("connections", "198 connections at the most", [(EDGE, "spec.strategy.rollingUpdate.maxSurge", "80%")]),
    ("connections", "no policy says by sluice/max-connections", [
        (f"{POLICY}/to-postgres", "metadata.annotations", None)]),
    ("shares", "Deployment/edge: EDGE_REPLICAS 1 is less than the 3", [("ConfigMap/edge", "data.EDGE_REPLICAS", None)]),
    ("encryption", "Deployment/inference: REDIS_HOST is redis.example.com, and REDIS_TLS", [
        ("ConfigMap/sluice", "data.REDIS_TLS", "false")]),
    ("encryption", "Job/migrate-metrics: DATABASE_URL leads to pg.example.com without", [
        ("Secret/sluice-postgres-metrics", "stringData.database-url", "postgresql://m:x@pg.example.com/s?sslmode=require")]),
    ("families", "Deployment/edge: its ops port is on ::, and not all others are", [
        ("ConfigMap/sluice", "data.SLUICE_OPS_HOST", "::")]),
    ("families", "NetworkPolicy/to-redis: 10.10.1.0/24 has nothing of IPv6, and the services listen on ::", IPV6),
    ("families", "EDGE_TRUSTED_PROXIES 10.244.0.0/16 has nothing of IPv6, and", IPV6),
    ("families", "NetworkPolicy/to-redis: fd00::/64 has nothing of IPv4", [
        (f"{POLICY}/to-redis", "spec.egress.0.to.0.ipBlock.cidr", "fd00::/64")]),
    ("journals", "no volume at EVENTS_JOURNAL_DIR", [
        ("ConfigMap/inference", "data.EVENTS_JOURNAL_DIR", "/tmp/journal")]),
    ("journals", "is not larger than EVENTS_JOURNAL_MAX_BYTES", [(EDGE, f"{POD}.volumes.5.emptyDir.sizeLimit", "1Gi")]),
    ("journals", "can fill the whole ephemeral-storage limit", [
        (EDGE, f"{BOX}.resources.limits.ephemeral-storage", "1200Mi")]),
    ("default_deny", "no policy denies Egress by default", [
        (f"{POLICY}/default-deny", "spec.policyTypes", ["Ingress"])]),
    ("default_deny", "no policy denies Ingress", [(f"{POLICY}/default-deny", "spec.ingress", [{}])]),
    ("peers", "its podSelector matches no workload", [
        (f"{POLICY}/edge", f"spec.podSelector.matchLabels.{NAME}", "egde")]),
    ("peers", "not that policyType", [(f"{POLICY}/analyst", "spec.policyTypes", ["Ingress"])]),
    ("peers", "is open to everyone", [(f"{POLICY}/inference", "spec.ingress.0.from", [])]),
    ("peers", "is open on every port", [(f"{POLICY}/inference", "spec.ingress.0.ports", None)]),
    ("peers", "matches no workload", [
        (f"{POLICY}/edge", f"spec.egress.0.to.0.podSelector.matchLabels.{NAME}", "inferense")]),
    ("strangers", "from-ingress: ingress names whatever runs in another namespace", [
        (f"{POLICY}/from-ingress", "spec.ingress.0.from.0.podSelector", None)]),
    ("internet", "to-redis: may send to 0.0.0.0/0 on port 6379", [
        (f"{POLICY}/to-redis", "spec.egress.0.to.0.ipBlock.cidr", "0.0.0.0/0")]),
    ("internet", "to-redis: may send to 0.0.0.0/0, 169.254.0.0/16 and all", [
        (f"{POLICY}/to-redis", "spec.egress.0.to.0.ipBlock", {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]})]),
    ("internet", "to-redis: may send to ::/0, fc00::/7 and all", [
        (f"{POLICY}/to-redis", "spec.egress.0.to.0.ipBlock", {"cidr": "::/0", "except": ["10.0.0.0/8"]})]),
    ("both_ends", "Deployment/edge may send to Deployment/inference on port 8001, which does not let it in", [
        (f"{POLICY}/inference", f"spec.ingress.0.from.0.podSelector.matchLabels.{NAME}", "analyst")]),
    ("both_ends", "Deployment/metrics lets Deployment/edge in on port 8002, who may not send there", [
        (f"{POLICY}/edge", "spec.egress.1", None)]),
    ("both_ends", "port 8009 is no port of Deployment/inference", [
        (f"{POLICY}/edge", "spec.egress.0.ports.0.port", 8009),
        (f"{POLICY}/inference", "spec.ingress.0.ports.0.port", 8009)]),
    ("both_ends", "port 80 is no port of any pod it selects", [
        (f"{POLICY}/from-ingress", "spec.ingress.0.ports.0.port", 80)]),
    ("roles", "Deployment/edge and Deployment/metrics are the same user sluice_edge of postgres.example.com", [
        ("Secret/sluice-postgres-metrics", "stringData.database-url", "postgresql://sluice_edge:x@postgres.example.com/s")]),
    ("roles", "Deployment/edge and Deployment/inference are the same user sluice_edge of redis.example.com", [
        ("ConfigMap/inference", "data.REDIS_USERNAME", "sluice_edge")]),
    ("roles", "are the same user default of redis.example.com", [
        (f"ConfigMap/{name}", "data.REDIS_USERNAME", None) for name in ("edge", "analyst")]),
    ("routes", "no policy lets it send to Deployment/metrics", [(f"{POLICY}/analyst", "spec.egress.0", None)]),
    ("routes", "REDIS_HOST is redis.example.com:6380, but no policy lets it send out on port 6380", [
        ("ConfigMap/sluice", "data.REDIS_PORT", "6380")]),
    ("routes", "Job/migrate-edge: the host in DATABASE_URL is pg.example.com:6432, but no policy lets it send out", [
        ("Secret/sluice-postgres-edge", "stringData.database-url", "postgresql://sluice:x@pg.example.com:6432/sluice")]),
    ("routes", "METRICS_WEBHOOK_URL is hooks.example.com:443, but no policy lets it send out on port 443", [
        ("ConfigMap/metrics", "data.METRICS_WEBHOOK_URL", "https://hooks.example.com/one")]),
    ("routes", "EDGE_UPSTREAM_METRICS is metrics:8002, but no policy lets it send to Deployment/metrics on port 8002", [
        (f"{POLICY}/edge", "spec.egress.1.ports.0.port", 9002)]),
    ("entrances", "Ingress/edge: no policy lets another namespace in to Deployment/edge on port 8000", [
        (f"{POLICY}/from-ingress", "spec.ingress.0.ports.0.port", 9000)]),
    ("entrances", "PodMonitor/sluice: no policy lets another namespace in to Deployment/metrics on port 9002", [
        (f"{POLICY}/from-prometheus", "spec.ingress.0.ports.2", None)]),
    ("targets", "there is no egde to scale", [(HPA, "spec.scaleTargetRef.name", "egde")]),
    ("targets", "the two fight", [(HPA, "spec.scaleTargetRef.name", "inference")]),
    ("targets", "sets replicas, which HorizontalPodAutoscaler/edge owns", [(EDGE, "spec.replicas", 3)]),
    ("targets", "Deployment/inference: nobody says", [(SCALED, "spec.scaleTargetRef.name", "other")]),
    ("bounds", "from 30 to 20 replicas is no range", [(HPA, "spec.minReplicas", 30)]),
    ("bounds", "from 0 to 12 replicas is no range", [(SCALED, "spec.minReplicaCount", 0)]),
    ("bounds", "scales down within a minute", [(HPA, "spec.behavior.scaleDown.stabilizationWindowSeconds", 0)]),
    ("bounds", "fallback to 40 replicas", [(SCALED, "spec.fallback.replicas", 40)]),
    ("metrics", "edge has no cpu request to be scaled by", [(EDGE, f"{BOX}.resources.requests.cpu", None)]),
    ("metrics", "has no metric", [(HPA, "spec.metrics", [])]),
    ("metrics", "asks for the pods of namespace sluice instead of its own", [
        (SCALED, "metadata.namespace", "other"), (INFERENCE, "metadata.namespace", "other")]),
    ("disruptions", "so that no node can be drained", [(PDB, "spec.maxUnavailable", 0)]),
    ("disruptions", "wants 3 of 3 pods", [(PDB, "spec.maxUnavailable", None), (PDB, "spec.minAvailable", 3)]),
    ("disruptions", "lets all 3 pods go at once", [(PDB, "spec.maxUnavailable", 3)]),
    ("disruptions", "needs one of", [(PDB, "spec.minAvailable", 1)]),
    ("disruptions", "its selector matches no workload", [(PDB, f"spec.selector.matchLabels.{NAME}", "egde")]),
    ("disruptions", "has two budgets", [(PDB, f"spec.selector.matchLabels.{NAME}", "metrics")]),
    ("disruptions", "Deployment/edge: has no PodDisruptionBudget", [(PDB, "kind", "Other")]),
    ("spread", "is not spread over topology.kubernetes.io/zone", [(EDGE, f"{POD}.topologySpreadConstraints.0", None)]),
    ("spread", "counts other pods", [
        (EDGE, f"{POD}.topologySpreadConstraints.1.labelSelector.matchLabels.{NAME}", "egde")]),
    ("spread", "does not shun nodes", [(EDGE, f"{POD}.affinity", None)]),
    ("spread", "does not shun nodes", [(EDGE, f"{SHUNNED}.weight", 50)]),
    ("spread", "does not shun nodes", [
        (EDGE, f"{SHUNNED}.podAffinityTerm.topologyKey", "topology.kubernetes.io/zone")]),
    ("spread", "does not shun nodes", [
        (EDGE, f"{SHUNNED}.podAffinityTerm.labelSelector.matchLabels.{NAME}", "egde")]),
    ("spread", "a rollout may leave no replica", [(EDGE, "spec.strategy.rollingUpdate.maxUnavailable", 3)]),
    ("rollouts", "minReadySeconds 0 lets a pod", [(EDGE, "spec.minReadySeconds", None)]),
    ("rollouts", "progressDeadlineSeconds 600 is not", [(EDGE, "spec.progressDeadlineSeconds", None)]),
    ("rollouts", "progressDeadlineSeconds 5 is not", [(EDGE, "spec.progressDeadlineSeconds", 5)]),
    ("rollouts", "progressDeadlineSeconds 300 is not within 310 and 610", [
        (EDGE, f"{BOX}.startupProbe.failureThreshold", 300)]),
    ("settings", "EDGE_UPSTREAM_INFERENSE is not a setting", [("ConfigMap/edge", "data.EDGE_UPSTREAM_INFERENSE", "")]),
    ("settings", "EDGE_TRUSTED_PROXIES is not valid", [("ConfigMap/edge", "data.EDGE_TRUSTED_PROXIES", "10.0.0.0/40")]),
    ("settings", "DATABASE_URL is not set", [("Job/migrate-metrics", f"{BOX}.env", [])]),
    ("settings", "the service listens on 8000", [(EDGE, f"{BOX}.ports.0.containerPort", 8080)]),
    ("settings", "where nobody can reach it", [("ConfigMap/metrics", "data.METRICS_HOST", "127.0.0.1")]),
    ("settings", "where nobody can reach it", [("ConfigMap/sluice", "data.SLUICE_OPS_HOST", "127.0.0.1")]),
]  # fmt: skip  # a line each where it fits


def test_production__breaks_no_rule(spoil: Callable[..., Manifests]) -> None:
    assert problems(spoil()) == []


def test_certificate_that_cert_manager_makes__needs_no_promise(spoil: Callable[..., Manifests]) -> None:
    issued = ("Ingress/edge", "metadata.annotations", {"cert-manager.io/cluster-issuer": "public"})
    assert problems(spoil(("Secret/sluice-tls", "metadata.name", "other"), issued)) == []


def test_policy_file_in_a_config_map__is_no_error(overlay: Overlay) -> None:
    metadata = {"name": "policies", "namespace": "sluice"}
    overlay.documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.yaml": "x"}})
    overlay.set("ConfigMap/edge", "data.EDGE_POLICY_FILE", "/etc/sluice/a.yaml")
    overlay.set(EDGE, f"{POD}.volumes.8", {"name": "policies", "configMap": {"name": "policies"}})
    overlay.set(EDGE, f"{BOX}.volumeMounts.8", {"name": "policies", "mountPath": "/etc/sluice", "readOnly": True})
    assert problems(overlay.manifests()) == []
    overlay.set("ConfigMap/edge", "data.EDGE_POLICY_FILE", "/etc/sluice/b.yaml")
    assert "which the volume policies does not hold" in problems(overlay.manifests())[0]


@pytest.mark.parametrize(("rule", "says", "edits"), PLANTED, ids=[f"{rule}: {says}" for rule, says, _ in PLANTED])
def test_planted_error__is_found(rule: str, says: str, edits: list[Any], spoil: Callable[..., Manifests]) -> None:
    found = list(BY_NAME[rule](spoil(*edits)))
    assert any(says in line for line in found), found


def test_every_rule__has_a_planted_error() -> None:
    assert set(BY_NAME) == {rule for rule, _, _ in PLANTED}
