"""The overlays as kustomize renders them, and the output of the check."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from k8s_check.__main__ import OVERLAYS, copy_example, expected_secrets, find_kustomize, main, render
from k8s_check.destinations import destinations
from k8s_check.model import Manifests, Resource
from k8s_check.network import paths
from k8s_check.schemas import VERSIONS, kubernetes_problems


@pytest.fixture(scope="module")
def kustomize() -> Sequence[str]:
    found = find_kustomize()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def rendered(kustomize: Sequence[str]) -> dict[str, Manifests]:
    overlays = [OVERLAYS / name for name in ("dev", "prod", "prod-gpu", "prod-ipv6", "prod-options")]
    return {overlay.name: Manifests(render(kustomize, overlay), expected_secrets(overlay)) for overlay in overlays}


@pytest.fixture(scope="module")
def example(kustomize: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    overlay = copy_example(tmp_path_factory.mktemp("outside"))
    return Manifests(render(kustomize, overlay), expected_secrets(overlay))


def test_broken_overlay__fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prod = os.path.relpath(OVERLAYS / "prod", tmp_path / "broken")
    (tmp_path / "broken").mkdir()
    patch = '[{"op": "add", "path": "/spec/template/spec/enableServiceLinks", "value": true}]'
    (tmp_path / "broken" / "kustomization.yaml").write_text(
        f"resources: [{prod}]\npatches: [{{target: {{kind: Deployment, name: edge}}, patch: '{patch}'}}]\n"
    )
    assert main(tmp_path) == 1
    assert "broken: service_links: Deployment/edge: enableServiceLinks is not false" in capsys.readouterr().out


def test_prod__needs_no_operator_and_no_gemini_key(rendered: dict[str, Manifests]) -> None:
    prod = rendered["prod"]
    assert prod.of("ScaledObject", "PodMonitor", "PrometheusRule", "Ingress") == []
    assert [route.name for route in prod.of("HTTPRoute")] == ["edge"]
    assert len(prod.of("HorizontalPodAutoscaler")) == 4
    assert "sluice-gemini" not in str(prod.resources) + str(prod.expected)


def test_keda__replaces_only_the_autoscaler_of_inference(rendered: dict[str, Manifests]) -> None:
    options = rendered["prod-options"]
    assert sorted(scaler.name for scaler in options.of("HorizontalPodAutoscaler")) == ["analyst", "edge", "metrics"]
    assert [scaler.name for scaler in options.of("ScaledObject")] == ["inference"]


def test_ingress__replaces_the_route(rendered: dict[str, Manifests]) -> None:
    options = rendered["prod-options"]
    assert options.of("HTTPRoute") == []
    [ingress] = options.of("Ingress")
    assert ingress.annotations["cert-manager.io/cluster-issuer"] == "public"


def test_openshift__fixes_no_user_ids(rendered: dict[str, Manifests]) -> None:
    contexts = [pod.spec["securityContext"] for pod in rendered["prod-options"].pods]
    assert contexts and not any({"runAsUser", "runAsGroup", "fsGroup"} & context.keys() for context in contexts)


def test_example_outside_the_clone__replaces_every_example_value(example: Manifests) -> None:
    text = str(example.resources)
    assert "redis.prod.example.com" in text and "'redis.example.com'" not in text
    assert not {"10.244.0.0/16", "10.10.0.0/24", "10.10.1.0/24", "'sluice.example.com'"} & set(text.split())
    assert all("registry.example.com" in c.data["image"] for pod in example.pods for c in pod.containers)
    assert {pod.spec["priorityClassName"] for pod in example.pods if pod.owner.kind == "Deployment"} == {"production"}


def test_internet__is_reachable_only_with_the_component_gemini(rendered: dict[str, Manifests]) -> None:
    open_to_all = {
        name: [str(path.policy) for path in paths(manifests) if path.peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"]
        for name, manifests in rendered.items()
    }
    assert open_to_all.pop("dev") == ["NetworkPolicy/to-gemini"]
    assert not any(open_to_all.values())
    blocks = [path.peer["ipBlock"] for path in paths(rendered["dev"]) if "except" in path.peer.get("ipBlock", {})]
    assert {"10.0.0.0/8", "169.254.0.0/16", "fc00::/7", "fe80::/10"} <= {net for b in blocks for net in b["except"]}


def test_options__reach_only_the_proxy_and_the_webhook(rendered: dict[str, Manifests]) -> None:
    new = {str(way) for way in destinations(rendered["prod-options"])} - {
        str(way) for way in destinations(rendered["prod"])
    }
    assert new == {
        "Deployment/analyst: https_proxy is proxy.example.com:3128",
        "Deployment/metrics: METRICS_WEBHOOK_URL is alerts.example.com:443",
    }


def test_dev__needs_no_operator_and_brings_its_stores(rendered: dict[str, Manifests]) -> None:
    dev = rendered["dev"]
    assert sorted(store.name for store in dev.of("StatefulSet")) == ["postgres", "valkey"]
    assert dev.of("ScaledObject", "PodMonitor", "PrometheusRule", "HTTPRoute") == []
    assert dev.expected == []


def test_gpu__scales_by_whole_batches(rendered: dict[str, Manifests]) -> None:
    [pod] = [pod for pod in rendered["prod-gpu"].pods if pod.owner.name == "inference"]
    [container] = pod.containers
    assert container.data["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container.data["image"] == "sluice/inference-cuda:0.2.0"
    [scaler] = rendered["prod-gpu"].of("ScaledObject")
    assert scaler.spec["triggers"][0]["metadata"]["threshold"] == "16384"
    assert scaler.spec["maxReplicaCount"] == 4


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("Deployment", {"apiVersion": "apps/v1beta1"}, "has no Deployment in apps/v1beta1"),
        ("Deployment", {"spec": {"replicas": "three"}}, "'three' is not"),
        ("HorizontalPodAutoscaler", {"spec": {"maxReplica": 3}}, "'maxReplica' was unexpected"),
    ],
)
def test_schema_violation__is_found(
    version: str, kind: str, change: dict[str, object], message: str, rendered: dict[str, Manifests]
) -> None:
    valid = rendered["prod"].of(kind)[0]
    assert kubernetes_problems(valid, version) == []
    broken = Resource(copy.deepcopy(dict(valid.data)) | change)
    assert any(message in problem for problem in kubernetes_problems(broken, version)), kubernetes_problems(
        broken, version
    )
