"""The stop grace periods of compose.yaml exceed the longest request and the closing of the stores."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s_check.pods import CLOSE_CONNECTIONS_S, CLOSE_STORES_S
from k8s_check.settings import SETTINGS, start, unfinished

COMPOSE = yaml.safe_load((Path(__file__).parents[1] / "deploy/compose/compose.yaml").read_text())["services"]
NAMES = {"edge": "edge-limiter", "inference": "inference", "metrics": "metrics", "analyst": "analyst"}


@pytest.mark.parametrize("service", NAMES)
def test_stop__allows_the_longest_request(service: str) -> None:
    declared: dict[str, Any] = COMPOSE[service]
    loaded = start(SETTINGS[NAMES[service]], declared["environment"])
    assert list(unfinished(loaded)) == []
    grace_s = float(declared["stop_grace_period"].removesuffix("s"))
    assert grace_s >= CLOSE_CONNECTIONS_S + loaded.sluice_drain_s + CLOSE_STORES_S
