"""Compose waits at a stop until the longest request is answered: the times of compose.yaml add up."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s_check.environment import SETTINGS, cut_off, start
from k8s_check.pods import CLOSING_S, GOODBYE_S

COMPOSE = yaml.safe_load((Path(__file__).parents[1] / "deploy/compose/compose.yaml").read_text())["services"]
NAMES = {"edge": "edge-limiter", "inference": "inference", "metrics": "metrics", "analyst": "analyst"}


@pytest.mark.parametrize("service", NAMES)
def test_a_stop__outlasts_the_longest_request(service: str) -> None:
    declared: dict[str, Any] = COMPOSE[service]
    loaded = start(SETTINGS[NAMES[service]], declared["environment"])
    assert list(cut_off(loaded)) == []
    grace_s = float(declared["stop_grace_period"].removesuffix("s"))
    assert grace_s >= GOODBYE_S + loaded.sluice_drain_s + CLOSING_S
