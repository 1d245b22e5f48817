"""Start one system with high limits and a fake Gemini. Only `make test-api` collects this folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_gemini import Script
from gemini import gemini
from system import System

collect_ignore_glob = [] if os.environ.get("API_TESTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, port_base: Callable[[], int]) -> Iterator[System]:
    with gemini(Script()) as endpoint:
        environment = {
            "EDGE_POLICY_FILE": str(Path(__file__).with_name("policies.toml")),
            "INFERENCE_MODERATION_LABELS": "NEGATIVE",
            "EDGE_ADMIN_RATE_LIMIT": "1000",
            "EDGE_ADMIN_RATE_WINDOW_S": "1",
            "GEMINI_SDK": "genai",
            "GEMINI_API_KEY": "none",
            "GEMINI_ENDPOINT": endpoint,
            "GEMINI_RATE_LIMIT": "100000",
        }
        shared = System(tmp_path_factory.mktemp("api") / "state", port_base(), environment)
        try:
            shared.start()
            yield shared
        finally:
            shared.stop()


@pytest.fixture
def token(system: System) -> str:
    return system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]
