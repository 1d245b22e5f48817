"""The Dockerfile passes its linter, the Compose file is valid, and builds are reproducible."""

import os
import sys
from pathlib import Path

from compose.stack import DEPLOY, ROOT, Stack, docker, run

TREE = "cd /opt/sluice && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"


def test_dockerfile__passes_hadolint() -> None:
    assert run(str(Path(sys.executable).with_name("hadolint")), str(DEPLOY / "Dockerfile")) == ""


def test_compose_file__is_valid_in_every_profile(stack: Stack) -> None:
    file = str(DEPLOY / "compose.yaml")
    words = ("docker", "compose", "-f", file, "--profile", "*", "config", "-q")
    run(*words, environment={"SECRETS": str(stack.secrets)})


def test_image_built_again_without_a_cache__has_the_same_bytes(stack: Stack) -> None:
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
