"""The files themselves: a linter reads the Dockerfile, Compose its files, and two builds make the same image."""

import os
import sys
from pathlib import Path

import pytest
from compose.stack import DEPLOY, ROOT, Stack, docker, run

TREE = "cd /opt/sluice && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"


def test_the_dockerfile__has_nothing_that_hadolint_finds() -> None:
    assert run(str(Path(sys.executable).with_name("hadolint")), str(DEPLOY / "Dockerfile")) == ""


@pytest.mark.parametrize("beside", [[], ["compose.dev.yaml"], ["compose.webhook.yaml"]], ids="+".join)
def test_the_compose_files__are_valid_in_every_profile(stack: Stack, beside: list[str]) -> None:
    chosen = [part for name in ("compose.yaml", *beside) for part in ("-f", str(DEPLOY / name))]
    run("docker", "compose", *chosen, "--profile", "*", "config", "-q", environment={"SECRETS": str(stack.secrets)})


def test_an_image_built_again_without_a_cache__holds_the_same_bytes(stack: Stack) -> None:
    again = f"sluice/metrics:again-{os.getpid()}"
    words = ("--no-cache", "--target", "service", "--build-arg", "SERVICE=metrics", "--tag", again)
    docker("build", "--quiet", *words, "--file", str(DEPLOY / "Dockerfile"), str(ROOT))
    try:
        first, second = (
            docker("run", "--rm", "--entrypoint", "sh", name, "-c", TREE) for name in ("sluice/metrics:local", again)
        )
    finally:
        docker("image", "rm", again)
    assert "site-packages/metrics/app.py" in first
    assert first.splitlines() == second.splitlines()
