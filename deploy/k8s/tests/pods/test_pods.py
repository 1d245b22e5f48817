"""Run each service's pod of the dev overlay with `podman kube play`, without a network and so without stores.

Podman supports neither fsGroup nor HTTP probes without curl, so secrets are world-readable and the test sends requests.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from k8s_check.__main__ import OVERLAYS, find_kustomize, render
from k8s_check.model import Manifests, Pod

PODMAN = ["podman", *os.environ.get("PODMAN_FLAGS", "").split()]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
WITHOUT_STORES = {"edge": 200, "inference": 200, "metrics": 503, "analyst": 200}  # metrics cannot answer without stores
ASK = """
import urllib.error, urllib.request as u, sys
try:
    print(u.urlopen(sys.argv[1], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
PREDICT = """
import http.client as h, sys
c = h.HTTPConnection("127.0.0.1", 8001, timeout=20)
c.request("POST", "/predict", '{"text": "A thoughtful, moving film."}', {"Content-Type": "application/json"})
sys.stdout.buffer.write(c.getresponse().read())
"""
TIMEOUT_S = 120.0

Play = Callable[[str], str]


def podman(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PODMAN, *words], input=given, capture_output=True, text=True, check=False)


def playable(manifests: Manifests, pod: Pod) -> str:
    """Return the pod with all ConfigMaps and Secrets, as documents for podman."""
    spec: Any = json.loads(json.dumps(pod.spec))
    for container in spec["containers"]:
        for name in PROBES:
            container.pop(name, None)
    for volume in spec["volumes"]:
        volume.get("secret", {}).pop("defaultMode", None)
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"sluice-{pod.owner.name}"}, "spec": spec}
    configuration = [dict(resource.data) for resource in manifests.of("ConfigMap", "Secret")]
    return str(yaml.safe_dump_all([*configuration, document]))


@pytest.fixture(scope="module")
def dev() -> Manifests:
    kustomize = find_kustomize()
    assert kustomize is not None
    return Manifests(render(kustomize, OVERLAYS / "dev"))


@pytest.fixture
def play(dev: Manifests) -> Iterator[Play]:
    """Start a service's pod and return the name of its container."""
    started: list[str] = []

    def start(name: str) -> str:
        [pod] = [pod for pod in dev.pods if pod.owner.name == name and pod.owner.kind == "Deployment"]
        started.append(playable(dev, pod))
        done = podman("kube", "play", "--network", "none", "--replace", "-", given=started[-1])
        assert done.returncode == 0, done.stderr
        return f"sluice-{name}-{name}"

    yield start
    for documents in started:
        podman("kube", "down", "--force", "-", given=documents)


def reach(container: str, expected: int, url: str) -> None:
    """Wait for a response with the expected status."""
    deadline = time.monotonic() + TIMEOUT_S
    while podman("exec", container, "python", "-c", ASK, url).stdout.strip() != str(expected):
        assert time.monotonic() < deadline, podman("logs", container).stdout
        time.sleep(0.2)


@pytest.mark.parametrize(("place", "name"), list(enumerate(WITHOUT_STORES)))
def test_pod__starts_and_stops_without_its_stores(place: int, name: str, play: Play) -> None:
    container = play(name)
    reach(container, 404, f"http://127.0.0.1:{8000 + place}/nowhere")
    reach(container, WITHOUT_STORES[name], f"http://127.0.0.1:{9000 + place}/readyz")
    reach(container, 200, f"http://127.0.0.1:{9000 + place}/livez")
    assert podman("exec", container, "id", "-u").stdout.strip() == "10001"
    assert podman("exec", container, "touch", "/opt/sluice/x").returncode  # read-only root
    stopped = podman("stop", "--time", "60", container)
    assert stopped.returncode == 0, stopped.stderr
    assert podman("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "0"


def test_inference_pod__answers_and_journals_the_event(play: Play) -> None:
    container = play("inference")
    reach(container, 200, "http://127.0.0.1:9001/readyz")
    answer = podman("exec", container, "python", "-c", PREDICT)
    assert json.loads(answer.stdout)["label"] == "POSITIVE", answer.stderr
    count = """cat /var/lib/sluice/journal/*.db | grep -a -o '"label":"POSITIVE"' | wc -l"""
    journaled = podman("exec", container, "sh", "-c", count)
    assert journaled.stdout.strip() == "1", journaled.stderr
