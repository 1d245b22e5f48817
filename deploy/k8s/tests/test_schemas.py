"""What operators' schemas refuse; those of Kubernetes are tested by `make k8s-check`, which installs them."""

from typing import Any

import pytest
from written import Overlay

from k8s_check.model import Resource
from k8s_check.schemas import operator_problems

SCALED, MONITOR, RULE = "ScaledObject/inference", "PodMonitor/sluice", "PrometheusRule/sluice"
AUTHENTICATION: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "TriggerAuthentication",
    "metadata": {"name": "prometheus"},
    "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "prometheus", "key": "token"}]},
}


@pytest.mark.parametrize("name", [SCALED, MONITOR, RULE])
def test_operators_resources__fit_their_schemas(name: str, overlay: Overlay) -> None:
    assert operator_problems(Resource(overlay[name])) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "says"),
    [
        (SCALED, "spec.triggers.0.metadata.threshold", 256, "256 is not of type 'string'"),
        (SCALED, "spec.minReplicas", 2, "'minReplicas' was unexpected"),
        (SCALED, "spec.scaleTargetRef.name", None, "'name' is a required property"),
        (SCALED, "spec.fallback.replicas", None, "'replicas' is a required property"),
        (SCALED, "spec.triggers.0.metricType", "Average", "is not one of"),
        (MONITOR, "spec.podMetricsEndpoints.0.interval", "15 s", "does not match"),
        (MONITOR, "spec.endpoints", [], "'endpoints' was unexpected"),
        (MONITOR, "spec.selector", None, "'selector' is a required property"),
        (RULE, "spec.groups.0.rules.0.expr", None, "'expr' is a required property"),
        (RULE, "spec.groups.0.rules.0.for", "1 minute", "does not match"),
        (RULE, "spec.groups.0.rules.0.labels.severity", 1, "1 is not of type 'string'"),
    ],
)
def test_planted_error__is_found(name: str, path: str, value: object, says: str, overlay: Overlay) -> None:
    overlay.set(name, path, value)
    found = operator_problems(Resource(overlay[name]))
    assert found and says in found[0]


def test_trigger_authentication__names_its_secret() -> None:
    assert operator_problems(Resource(AUTHENTICATION)) == []
    without_key = {**AUTHENTICATION, "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "prometheus"}]}}
    assert "'key' is a required property" in str(operator_problems(Resource(without_key)))


def test_kubernetes_kind__is_no_operators() -> None:
    assert operator_problems(Resource({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}})) is None
