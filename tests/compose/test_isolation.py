"""Privileges of the containers, the networks between them, and places that must contain no secret."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from compose.stack import DEPLOY, OPS_PORTS, ROOT, SERVICES, STORES, Stack, docker, run

CANARY = "canary-0f9e8d7c6b5a"
SECRETS = ("postgres-password", "database-url", "redis-password", "edge-admin-token", "events-hash-key")
SIZE_LIMITS_MB = {"edge-limiter": 150, "metrics": 150, "inference": 400, "analyst": 350}
PORTS = {**{name: [port, port - 1000] for name, port in OPS_PORTS.items()}, "postgres": [5432], "redis": [6379]}
BASE_IMAGE = "python:3.13-slim"
MB = 1_000_000

INSIDE = """
import errno, os, pathlib
print(os.getuid() != 0, os.getpid() != 1, open('/proc/1/cmdline').read().split('\\0')[1:3])
status = dict(line.split(':\\t') for line in open('/proc/1/status').read().splitlines() if ':\\t' in line)
print(int(status['CapBnd'], 16), status['NoNewPrivs'])
for path in ('/opt/sluice/x', '/etc/x', '/usr/local/bin/x'):
    try:
        pathlib.Path(path).touch()
    except OSError as error:
        print(errno.errorcode[error.errno])
"""

REACH = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.split(':')
    try:
        socket.create_connection((host, int(port)), 0.5).close()
        print(target)
    except OSError:
        pass
"""


@pytest.mark.parametrize("service", SERVICES)
def test_service__runs_unprivileged_on_a_read_only_root(stack: Stack, service: str) -> None:
    (container,) = stack.containers(service)
    package = "edge_limiter" if service == "edge" else service
    assert stack.python(container, INSIDE).splitlines() == [
        f"True True ['-m', '{package}']",  # the service is process 1 and receives SIGTERM
        "0 1",
        *(["EROFS"] * 3),
    ]


@pytest.mark.parametrize("store", STORES)
def test_store__runs_without_root_or_capabilities_on_a_read_only_root(stack: Stack, store: str) -> None:
    (container,) = stack.containers(store)
    assert docker("exec", container, "id", "-u") != "0"
    assert "CapBnd:\t0000000000000000" in docker("exec", container, "cat", "/proc/1/status")
    assert docker("exec", container, "sh", "-c", "touch /etc/x 2>&1 || true").endswith("Read-only file system")


def test_published_network__reaches_only_the_edge(stack: Stack) -> None:
    networks = {name: addresses(stack, name) for name in PORTS}
    edge = networks["edge"].pop(f"{stack.project}_front")
    closed = [f"{ip}:{port}" for name, found in networks.items() for ip in found.values() for port in PORTS[name]]
    front = (
        "run",
        "--rm",
        f"--network={stack.project}_front",
        "--entrypoint=python",
        "sluice/metrics:local",
        "-c",
        REACH,
    )
    # The ops port too: docs/operations.md lists the containers on that network.
    assert docker(*front, f"{edge}:8000", f"{edge}:9000", *closed).split() == [f"{edge}:8000", f"{edge}:9000"]
    inside = docker("exec", *stack.containers("edge"), "python", "-c", REACH, *closed)
    assert sorted(inside.split()) == sorted(closed)  # they all listen


def test_other_network__reaches_nothing(stack: Stack) -> None:
    networks = {name: addresses(stack, name).values() for name in PORTS}
    targets = [f"{ip}:{port}" for name, found in networks.items() for ip in found for port in PORTS[name]]
    other = ("run", "--rm", "--entrypoint=python", "sluice/metrics:local", "-c", REACH)
    assert docker(*other, *targets) == ""


def addresses(stack: Stack, service: str) -> dict[str, str]:
    """A service's address in each of its networks."""
    networks = stack.inspect(stack.containers(service)[0])["NetworkSettings"]["Networks"]
    return {name: network["IPAddress"] for name, network in networks.items() if "outbound" not in name}


def test_only_the_edge__publishes_a_port_on_loopback(stack: Stack) -> None:
    published = {name: docker("port", *stack.containers(name)) for name in (*SERVICES, *STORES)}
    assert re.fullmatch(r"8000/tcp -> 127\.0\.0\.1:\d+", published.pop("edge"))
    assert set(published.values()) == {""}


def test_no_service__has_a_route_outside(stack: Stack) -> None:
    names = ("inference", "metrics", "analyst", *STORES)
    assert [has_default_route(stack, name) for name in names] == [False] * len(names)


def test_gemini_key_and_webhook__open_a_route_outside(stack: Stack, tmp_path: Path) -> None:
    secrets, override = tmp_path / "secrets", tmp_path / "override.yaml"
    secrets.mkdir()
    (secrets / "gemini-api-key").write_text(CANARY)
    (secrets / "webhook-url").write_text("http://127.0.0.1:9/hook")
    run(str(DEPLOY / "select-overlays"), str(secrets), str(override))
    up = ("up", "--detach", "--wait", "--no-deps", "metrics", "analyst")
    try:
        stack.compose(*up, COMPOSE_FILE=f"{stack.environment['COMPOSE_FILE']}:{override}")
        assert has_default_route(stack, "metrics") and has_default_route(stack, "analyst")
    finally:
        stack.compose(*up)
        docker("network", "rm", f"{stack.project}_outbound")  # `down` leaves it: no service is in it any more


def has_default_route(stack: Stack, service: str) -> bool:
    """Read the routing table of the container."""
    routes = docker("exec", *stack.containers(service), "cat", "/proc/net/route").splitlines()[1:]
    assert routes
    return any(route.split()[1] == "00000000" for route in routes)


def test_redis__never_evicts_and_has_an_append_only_file(stack: Stack) -> None:
    (redis,) = stack.containers("redis")
    ask = 'REDISCLI_AUTH="$(cat /run/secrets/redis-password)" valkey-cli config get'
    assert docker("exec", redis, "sh", "-c", f"{ask} maxmemory-policy").split()[1] == "noeviction"
    assert docker("exec", redis, "sh", "-c", f"{ask} appendonly").split()[1] == "yes"
    assert "NOAUTH" in docker("exec", redis, "sh", "-c", "valkey-cli ping 2>&1")


def test_environment_command_lines_and_logs__contain_no_secret(stack: Stack) -> None:
    values = [stack.secret(name) for name in SECRETS]
    values.append(re.sub(r".*:(\w+)@.*", r"\1", stack.secret("database-url")))
    for name in (*SERVICES, *STORES):
        (container,) = stack.containers(name)
        seen = json.dumps(stack.inspect(container)) + docker("top", container) + docker("exec", container, "env")
        if name != "postgres":  # its image's entrypoint passes the superuser's password in the environment
            seen += docker("exec", container, "cat", "/proc/1/environ")
        assert [value for value in values if value in seen] == []
    assert [value for value in values if value in stack.compose("logs", "--no-color")] == []


async def test_gemini_key__is_in_no_log_and_no_environment(stack: Stack) -> None:
    key = stack.secrets / "gemini-api-key"
    key.write_text(CANARY)
    try:
        # The endpoint is the container's own port 9, which refuses connections: the report falls back to a template.
        stack.compose("up", "--detach", "--wait", "--no-deps", "analyst", GEMINI_ENDPOINT="http://127.0.0.1:9")
        (analyst,) = stack.containers("analyst")
        headers = {"X-Forwarded-For": "198.51.100.77"}
        async with aiohttp.ClientSession(stack.urls[0], headers=headers) as session:
            async with session.post("/analyze/performance", json={"window": "24h"}) as response:
                assert (response.status, (await response.json())["source"]) == (200, "rules")
        assert "sluice_analyst_model_calls_total{" in stack.metrics("analyst", analyst)  # the key was used
        logs = docker("logs", analyst)
        seen = json.dumps(stack.inspect(analyst)) + docker("exec", analyst, "cat", "/proc/1/environ") + logs
        assert CANARY not in seen
    finally:
        key.write_text("")
        stack.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", "analyst")


@pytest.mark.parametrize("service", SIZE_LIMITS_MB)
def test_image__is_small_and_labelled(stack: Stack, service: str, say: Callable[[str], None]) -> None:
    size = image(f"sluice/{service}:local")["Size"] - image(BASE_IMAGE)["Size"]
    say(f"sluice/{service}: {size / MB:.0f} MB over its base")
    assert size / MB <= SIZE_LIMITS_MB[service]
    labels = image(f"sluice/{service}:local")["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"sluice-{service}"
    assert labels["org.opencontainers.image.revision"] == run("git", "rev-parse", "HEAD", folder=ROOT).strip()
    version = f"import importlib.metadata as m; print(m.version('sluice-{service}'))"
    said = docker("run", "--rm", "--entrypoint=python", f"sluice/{service}:local", "-c", version)
    assert labels["org.opencontainers.image.version"] == said
    assert labels["org.opencontainers.image.licenses"] == "MIT AND Apache-2.0"
    assert labels["org.opencontainers.image.base.name"] == BASE_IMAGE
    assert image(f"sluice/{service}:local")["Config"]["User"] == "10001:10001"
    listed = docker("run", "--rm", "--entrypoint=ls", f"sluice/{service}:local", "/usr/share/doc/sluice")
    assert listed.split() == ["LICENSE", "LICENSES", "NOTICE"]


def test_image_layers__contain_no_secret_of_the_build_context(stack: Stack, tmp_path: Path) -> None:
    assert stack.secrets.is_relative_to(ROOT)
    saved = tmp_path / "image.tar"
    for service in SIZE_LIMITS_MB:
        docker("save", "--output", str(saved), f"sluice/{service}:local")
        content = saved.read_bytes()
        assert f"sluice-{service}".encode() in content
        assert [name for name in SECRETS if stack.secret(name).encode() in content] == []
    saved.unlink()


def image(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", name))
    return found[0]
