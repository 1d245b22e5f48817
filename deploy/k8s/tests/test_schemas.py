"""Violations of the custom resources' schemas. `make k8s-check` tests those of Kubernetes, which it installs."""

from typing import Any

import pytest
from written import Overlay

from k8s_check.model import Resource
from k8s_check.schemas import schema_problems

SCALED, MONITOR, RULE, ROUTE = "ScaledObject/inference", "PodMonitor/sluice", "PrometheusRule/sluice", "HTTPRoute/edge"
AUTHENTICATION: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "TriggerAuthentication",
    "metadata": {"name": "prometheus"},
    "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "prometheus", "key": "token"}]},
}


@pytest.mark.parametrize("name", [SCALED, MONITOR, RULE, ROUTE])
def test_custom_resource__fits_its_schema(name: str, overlay: Overlay) -> None:
    assert schema_problems(Resource(overlay[name])) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (SCALED, "spec.triggers.0.metadata.threshold", 256, "256 is not of type 'string'"),
        (SCALED, "spec.minReplicas", 2, "'minReplicas' was unexpected"),
        (MONITOR, "spec.podMetricsEndpoints.0.interval", "15 s", "does not match"),
        (RULE, "spec.groups.0.rules.0.expr", None, "'expr' is a required property"),
        (ROUTE, "spec.rules.1.timeouts.request", "65", "does not match"),
        (ROUTE, "spec.parentRefs.0.name", None, "'name' is a required property"),
    ],
)
def test_violation__is_found(name: str, path: str, value: object, message: str, overlay: Overlay) -> None:
    overlay.set(name, path, value)
    found = schema_problems(Resource(overlay[name]))
    assert found and message in found[0]


def test_trigger_authentication__names_its_secret() -> None:
    assert schema_problems(Resource(AUTHENTICATION)) == []
    without_key = {**AUTHENTICATION, "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "prometheus"}]}}
    assert "'key' is a required property" in str(schema_problems(Resource(without_key)))
