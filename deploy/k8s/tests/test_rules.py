"""Each rule accepts the production overlay and finds the errors planted in it."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from written import Overlay

from k8s_check.model import Manifests
from k8s_check.rules import RULES, problems

ROOT = Path(__file__).parents[3]
POD = "spec.template.spec"
BOX = f"{POD}.containers.0"
EDGE, INFERENCE, METRICS = "Deployment/edge", "Deployment/inference", "Deployment/metrics"
HPA, SCALED, ROUTE = "HorizontalPodAutoscaler/edge", "ScaledObject/inference", "HTTPRoute/edge"
POLICY = "NetworkPolicy"
NAME = "app|kubernetes|io/name"
GPU: tuple[str, str, object] = (INFERENCE, f"{BOX}.resources.limits.nvidia|com/gpu", 1)

BY_NAME = {rule.__name__: rule for rule in RULES}

# rule, part of its message, and the edits that plant the error
PLANTED: list[tuple[str, str, list[tuple[str, str, object]]]] = [
    ("labels", "Deployment/edge: its pods have no label app.kubernetes.io/version", [
        (EDGE, "spec.template.metadata.labels.app|kubernetes|io/version", None)]),
    ("service_names", "Service/metrics: its name does not begin with sluice-", [
        ("Service/sluice-metrics", "metadata.name", "metrics")]),
    ("migration_names", "Job/migrate-edge: its name does not end with its version 0.2.0", [
        ("Job/migrate-edge-0-2-0", "metadata.name", "migrate-edge")]),
    ("operator_labels", "PodMonitor/sluice: has no label release", [
        ("PodMonitor/sluice", "metadata.labels.release", None)]),
    ("node_selectors", "nodeSelector nvidia.com/gpu.present needs GPU Feature Discovery", [
        (INFERENCE, f"{POD}.nodeSelector", {"nvidia.com/gpu.present": "true"})]),
    ("services", "there is no Service sluice-inferense", [
        ("ConfigMap/edge", "data.EDGE_UPSTREAM_INFERENCE", "http://sluice-inferense:8001")]),
    ("services", "Service sluice-metrics has no port 80", [
        ("ConfigMap/edge", "data.EDGE_UPSTREAM_METRICS", "http://sluice-metrics")]),
    ("services", "REDIS_HOST is vakley:6379: there is no Service vakley", [
        ("ConfigMap/sluice", "data.REDIS_HOST", "vakley")]),
    ("services", "there is no Service second", [
        ("Secret/sluice-postgres-edge", "stringData.database-url", "postgresql://s:x@a.example.com:5432,second/sluice")]),
    ("monitors", "has no port metrics", [("PodMonitor/sluice", "spec.podMetricsEndpoints.0.port", "metrics")]),
    ("monitors", "does not select Deployment/analyst", [
        ("PodMonitor/sluice", "spec.selector.matchExpressions.0.values", ["edge", "inference", "metrics"])]),
    ("monitors", "has no label app", [("PodMonitor/sluice", "spec.jobLabel", "app")]),
    ("monitors", "no policy lets another namespace reach Deployment/metrics on port 9002", [
        (f"{POLICY}/from-prometheus", "spec.ingress.0.ports.2", None)]),
    ("files", "DATABASE_URL_FILE is /run/secrets/database-url", [
        (EDGE, f"{BOX}.env.0.value", "/run/secrets/database-url")]),
    ("files", "DATABASE_URL_FILE", [(EDGE, f"{POD}.volumes.0.secret.items.0.path", "url")]),
    ("secret_items", "volume sluice-redis mounts every key of its Secret", [
        (EDGE, f"{POD}.volumes.1.secret.items", None)]),
    ("service_links", "enableServiceLinks is not false", [
        ("Job/migrate-edge-0-2-0", f"{POD}.enableServiceLinks", True)]),
    ("drain", "is below the 82 s", [(EDGE, f"{POD}.terminationGracePeriodSeconds", 60)]),
    ("drain", "no preStop sleep", [(EDGE, f"{BOX}.lifecycle", None)]),
    ("time_limits", "Deployment/edge: EDGE_MAX_TIMEOUT_S 120 is not below SLUICE_DRAIN_S 65", [
        ("ConfigMap/edge", "data.EDGE_MAX_TIMEOUT_S", None)]),
    ("time_limits", "Deployment/analyst: ANALYST_TIMEOUT_S 60 is not below SLUICE_DRAIN_S 15", [
        ("ConfigMap/analyst", "data.SLUICE_DRAIN_S", None)]),
    ("connection_budget", "up to 153 connections are needed, but PostgreSQL has 97: Deployment/analyst 10, ", [
        (f"{POLICY}/to-postgres", "metadata.annotations", {"sluice/max-connections": "100"})]),
    ("connection_budget", "up to 198 connections", [(EDGE, "spec.strategy.rollingUpdate.maxSurge", "80%")]),
    ("connection_budget", "no policy has the annotation sluice/max-connections", [
        (f"{POLICY}/to-postgres", "metadata.annotations", None)]),
    ("local_share", "Deployment/edge: EDGE_REPLICAS 1 is below the minimum of 3", [
        ("ConfigMap/edge", "data.EDGE_REPLICAS", None)]),
    ("journals", "do not increase", [(INFERENCE, f"{POD}.volumes.3.emptyDir.sizeLimit", "1Gi")]),
    ("journals", "do not increase", [(INFERENCE, f"{BOX}.resources.limits.ephemeral-storage", "1200Mi")]),
    ("default_deny", "no policy denies Egress by default", [
        (f"{POLICY}/default-deny", "spec.policyTypes", ["Ingress"])]),
    ("open_rules", "an ingress rule has no peers", [(f"{POLICY}/inference", "spec.ingress.0.from", [])]),
    ("open_rules", "an ingress rule has no ports", [(f"{POLICY}/inference", "spec.ingress.0.ports", None)]),
    ("open_rules", "from-gateway: ingress allows every pod of another namespace", [
        (f"{POLICY}/from-gateway", "spec.ingress.0.from.0.podSelector", None)]),
    ("both_ends", "Deployment/edge may send to Deployment/inference on port 8001, which does not accept it", [
        (f"{POLICY}/inference", f"spec.ingress.0.from.0.podSelector.matchLabels.{NAME}", "analyst")]),
    ("both_ends", "Deployment/metrics accepts Deployment/edge on port 8002, which may not send there", [
        (f"{POLICY}/edge", "spec.egress.1", None)]),
    ("both_ends", "port 8009 is no port of Deployment/inference", [
        (f"{POLICY}/edge", "spec.egress.0.ports.0.port", 8009),
        (f"{POLICY}/inference", "spec.ingress.0.ports.0.port", 8009)]),
    ("both_ends", "port 80 is no port of any pod it selects", [
        (f"{POLICY}/from-gateway", "spec.ingress.0.ports.0.port", 80)]),
    ("egress", "no policy allows egress to Deployment/metrics", [(f"{POLICY}/analyst", "spec.egress.0", None)]),
    ("egress", "REDIS_HOST is redis.example.com:6380, but no policy allows egress on port 6380", [
        ("ConfigMap/sluice", "data.REDIS_PORT", "6380")]),
    ("egress", "METRICS_WEBHOOK_URL is hooks.example.com:443, but no policy allows egress on port 443", [
        ("ConfigMap/metrics", "data.METRICS_WEBHOOK_URL", "https://hooks.example.com/one")]),
    ("routes_in", "HTTPRoute/edge: no policy lets another namespace reach Deployment/edge on port http", [
        (f"{POLICY}/from-gateway", "spec.ingress.0.ports.0.port", 9000)]),
    ("routes_in", "Service sluice-edge has no port 8000", [(ROUTE, "spec.rules.1.backendRefs.0.port", 8000)]),
    ("route_timeouts", "timeouts.request 60.0 is not above EDGE_MAX_TIMEOUT_S 60", [
        (ROUTE, "spec.rules.1.timeouts.request", "1m")]),
    ("route_timeouts", "timeouts.request None is not above", [(ROUTE, "spec.rules.1.timeouts", None)]),
    ("route_timeouts", "no rule for /metrics/stream without a time limit", [
        (ROUTE, "spec.rules.0.timeouts.request", "90s")]),
    ("queue_scaling", "fallback replicas between 2 and 12", [(SCALED, "spec.fallback", None)]),
    ("queue_scaling", "a missing metric counts as 0", [(SCALED, "spec.triggers.0.metadata.ignoreNullValues", None)]),
    ("queue_scaling", "threshold 256 is below a GPU's batch of 16384", [GPU]),
    ("queue_scaling", "queries another namespace, sluice", [
        (SCALED, "metadata.namespace", "other"), (INFERENCE, "metadata.namespace", "other")]),
    ("environment", "EDGE_UPSTREAM_INFERENSE is not a setting", [
        ("ConfigMap/edge", "data.EDGE_UPSTREAM_INFERENSE", "")]),
    ("environment", "EDGE_TRUSTED_PROXIES is not valid", [
        ("ConfigMap/edge", "data.EDGE_TRUSTED_PROXIES", "10.0.0.0/40")]),
    ("environment", "DATABASE_URL is not set", [("Job/migrate-metrics-0-2-0", f"{BOX}.env", [])]),
    ("environment", "the service listens on 8000", [(EDGE, f"{BOX}.ports.0.containerPort", 8080)]),
    ("environment", "which other pods cannot reach", [("ConfigMap/metrics", "data.METRICS_HOST", "127.0.0.1")]),
    ("environment", "which other pods cannot reach", [("ConfigMap/sluice", "data.SLUICE_OPS_HOST", "127.0.0.1")]),
]  # fmt: skip  # one line each where it fits


def test_production__has_no_problem(plant: Callable[..., Manifests]) -> None:
    assert problems(plant()) == []


def test_policy_file__may_be_in_a_config_map(overlay: Overlay) -> None:
    metadata = {"name": "policies", "namespace": "sluice"}
    overlay.documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"policies": "x"}})
    overlay.set("ConfigMap/edge", "data.EDGE_POLICY_FILE", "/etc/sluice/policies")
    overlay["Deployment/edge"]["spec"]["template"]["spec"]["volumes"].append({"name": "p", "configMap": metadata})
    [container] = overlay["Deployment/edge"]["spec"]["template"]["spec"]["containers"]
    container["volumeMounts"].append({"name": "p", "mountPath": "/etc/sluice", "readOnly": True})
    assert list(BY_NAME["files"](overlay.manifests())) == []
    overlay.set("ConfigMap/edge", "data.EDGE_POLICY_FILE", "/etc/sluice/other")
    assert "which no mounted volume contains" in next(BY_NAME["files"](overlay.manifests()))


@pytest.mark.parametrize(("rule", "message", "edits"), PLANTED, ids=[f"{rule}: {text}" for rule, text, _ in PLANTED])
def test_planted_error__is_found(rule: str, message: str, edits: list[Any], plant: Callable[..., Manifests]) -> None:
    found = list(BY_NAME[rule](plant(*edits)))
    assert any(message in line for line in found), found


def test_every_rule__has_a_planted_error() -> None:
    assert set(BY_NAME) == {rule for rule, _, _ in PLANTED}


def test_version_of_the_manifests__is_that_of_the_project(overlay: Overlay) -> None:
    version = tomllib.loads((ROOT / "libs/common/pyproject.toml").read_text())["project"]["version"]
    images = [
        c["image"]
        for d in overlay.documents
        if d["kind"] == "Deployment"
        for c in d["spec"]["template"]["spec"]["containers"]
    ]
    assert {image.partition(":")[2] for image in images} == {version}
    assert overlay[EDGE]["metadata"]["labels"]["app.kubernetes.io/version"] == version


def test_stores_of_the_dev_overlay__have_the_versions_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    stores = (ROOT / "deploy/k8s/overlays/dev/stores.yaml").read_text()
    images = re.findall(r"image: (\S+)", stores)
    assert images == [compose["x-postgres-image"], compose["x-redis-image"]]
