"""What kustomize makes of the overlays, and what the check says when it is not right."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from k8s_check.__main__ import OVERLAYS, find_kustomize, main, promised, render
from k8s_check.destinations import destinations
from k8s_check.model import Manifests, Resource
from k8s_check.network import ways
from k8s_check.schemas import VERSIONS, kubernetes_problems


@pytest.fixture(scope="module")
def kustomize() -> Sequence[str]:
    found = find_kustomize()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def rendered(kustomize: Sequence[str]) -> dict[str, Manifests]:
    overlays = [OVERLAYS / name for name in ("dev", "prod", "prod-gpu", "prod-ipv6", "prod-options")]
    return {overlay.name: Manifests(render(kustomize, overlay), promised(overlay)) for overlay in overlays}


def test_spoilt_overlay__fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prod = os.path.relpath(OVERLAYS / "prod", tmp_path / "spoilt")
    (tmp_path / "spoilt").mkdir()
    patch = '[{"op": "add", "path": "/spec/template/spec/enableServiceLinks", "value": true}]'
    (tmp_path / "spoilt" / "kustomization.yaml").write_text(
        f"resources: [{prod}]\npatches: [{{target: {{kind: Deployment, name: edge}}, patch: '{patch}'}}]\n"
    )
    (tmp_path / "spoilt" / "secrets.example.yaml").write_text((OVERLAYS / "prod/secrets.example.yaml").read_text())
    assert main(tmp_path) == 1
    assert "spoilt: isolation: Deployment/edge: enableServiceLinks is not false" in capsys.readouterr().out


def test_no_kustomize__is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main() == 2
    assert "apt install kustomize" in capsys.readouterr().err


def test_keda__replaces_the_autoscaler_of_inference_alone(rendered: dict[str, Manifests]) -> None:
    prod = rendered["prod"]
    assert sorted(hpa.name for hpa in prod.of("HorizontalPodAutoscaler")) == ["analyst", "edge", "metrics"]
    assert [scaled.name for scaled in prod.of("ScaledObject")] == ["inference"]


def test_production__reaches_the_internet_by_a_component_alone(rendered: dict[str, Manifests]) -> None:
    open_to_all = {
        name: [str(way.policy) for way in ways(manifests) if way.peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"]
        for name, manifests in rendered.items()
    }
    assert open_to_all.pop("dev") == ["NetworkPolicy/to-gemini"]
    assert not any(open_to_all.values())
    named = {str(way) for way in destinations(rendered["prod-options"])} - {
        str(way) for way in destinations(rendered["prod"])
    }
    assert named == {
        "Deployment/analyst: https_proxy is proxy.example.com:3128",
        "Deployment/metrics: METRICS_WEBHOOK_URL is alerts.example.com:443",
    }


def test_certificate__is_asked_of_cert_manager_by_its_component_alone(rendered: dict[str, Manifests]) -> None:
    for name, issuer in (("prod", None), ("prod-options", "public")):
        [ingress] = rendered[name].of("Ingress")
        annotations = ingress.data["metadata"].get("annotations") or {}
        assert annotations.get("cert-manager.io/cluster-issuer") == issuer


def test_dev__needs_no_operator_and_brings_its_stores(rendered: dict[str, Manifests]) -> None:
    dev = rendered["dev"]
    assert sorted(store.name for store in dev.of("StatefulSet")) == ["postgres", "valkey"]
    assert dev.of("ScaledObject", "PodMonitor", "PrometheusRule") == []
    assert dev.promised == []


def test_gpu__asks_for_one_and_for_the_image_with_torch(rendered: dict[str, Manifests]) -> None:
    [pod] = [pod for pod in rendered["prod-gpu"].pods if pod.owner.name == "inference"]
    [container] = pod.containers
    assert container.data["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container.data["image"].startswith("registry.example.com/sluice/inference-cuda@sha256:")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("Deployment", {"apiVersion": "apps/v1beta1"}, "has no Deployment in apps/v1beta1"),
        ("PodDisruptionBudget", {"apiVersion": "policy/v1beta1"}, "has no PodDisruptionBudget in policy/v1beta1"),
        ("Deployment", {"spec": {"replicas": "three"}}, "'three' is not"),
        ("Service", {"spec": {"ports": [{"port": "http"}]}}, "'http' is not"),
        ("HorizontalPodAutoscaler", {"spec": {"maxReplica": 3}}, "'maxReplica' was unexpected"),
        ("NetworkPolicy", {"specs": {}}, "'specs' was unexpected"),
        ("Job", {"spec": {"backoffLimit": 3}}, "'template' is a required property"),
    ],
)
def test_error_against_a_schema__is_found(
    version: str, kind: str, change: dict[str, object], says: str, rendered: dict[str, Manifests]
) -> None:
    sound = rendered["prod"].of(kind)[0]
    assert kubernetes_problems(sound, version) == []
    spoilt = Resource(copy.deepcopy(dict(sound.data)) | change)
    assert any(says in problem for problem in kubernetes_problems(spoilt, version)), kubernetes_problems(
        spoilt, version
    )
