"""TLS in front of the edge: the nginx configuration of docs/operations.md, and Caddy of the profile `tls`."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from compose import documented
from compose.stack import Stack, docker, run

NAME = "sluice.example.com"
CERTIFICATE = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}")
TIMEOUT_S = 15


@dataclass(frozen=True)
class Proxy:
    """A TLS server and the certificate that clients trust."""

    port: int
    certificate: Path

    @contextmanager
    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Iterator[HTTPResponse]:
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        with closing(HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT_S, context=trusted)) as connection:
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                yield response


@pytest.fixture
def proxy(stack: Stack, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Proxy]:
    """Run nginx on the host, in front of an edge that trusts only the documented address."""
    port = free_port()
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    files = ("-keyout", f"{certificates}/privkey.pem", "-out", f"{certificates}/fullchain.pem")
    run("openssl", *CERTIFICATE, "-addext", "subjectAltName=IP:127.0.0.1", *files)
    gateway = stack.shell(
        documented.line("TLS", "docker network inspect").replace("sluice_", f"{stack.project}_"), tmp_path
    )
    stack.compose("up", "--detach", "--wait", "--no-deps", "edge", TRUSTED_PROXIES=f"{gateway.strip()}/32")
    (server,) = [block for block in documented.blocks("TLS") if block.startswith("server {")]
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "sluice.conf").write_text(
        server.replace("listen 443", f"listen 127.0.0.1:{port}").replace("http://127.0.0.1:8000", stack.urls[0])
    )
    mounts = (f"--volume={certificates}:/etc/ssl/sluice:ro", f"--volume={tmp_path}/conf.d:/etc/nginx/conf.d:ro")
    nginx = docker("run", "--detach", "--rm", "--network=host", *mounts, "nginx:1.26")
    try:
        wait_open(port)
        yield Proxy(port, certificates / "fullchain.pem")
    finally:
        docker("rm", "--force", nginx)
        stack.compose("up", "--detach", "--wait", "--no-deps", "edge")


def test_nginx__terminates_tls_and_replaces_the_client_address(proxy: Proxy) -> None:
    remaining = []
    for address in ("192.0.2.1", "192.0.2.2"):
        headers = {"X-Forwarded-For": address, "Content-Type": "application/json"}
        with proxy.ask("POST", "/predict", '{"text": "A thoughtful, moving film."}', **headers) as response:
            assert json.load(response)["label"] == "POSITIVE"
            remaining.append(int(response.headers["X-RateLimit-Remaining"]))
    assert remaining[0] - remaining[1] == 1  # both were counted under one address


def test_live_stream__is_not_buffered_by_nginx(proxy: Proxy) -> None:
    with proxy.ask("GET", "/metrics/stream") as response:
        lines = [response.readline() for _ in range(8)]  # each within TIMEOUT_S, while the stream goes on
    assert [line for line in lines if line.startswith(b"data:")]


def wait_open(port: int) -> None:
    """Wait until the port accepts connections."""
    deadline = time.monotonic() + TIMEOUT_S
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
