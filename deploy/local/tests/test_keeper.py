"""How long a service may take: for what it was told, and not less."""

import pytest

from launcher.environment import drain_s
from launcher.keeper import patience


@pytest.mark.parametrize(
    ("set_to", "killed_after_s"), [({}, 30), ({"SLUICE_DRAIN_S": "5"}, 30), ({"SLUICE_DRAIN_S": "120"}, 135)]
)
def test_service__is_killed_only_after_the_drain_it_was_told(set_to: dict[str, str], killed_after_s: int) -> None:
    assert patience(drain_s(set_to)).drain_s == killed_after_s


@pytest.mark.parametrize("value", ["", "soon"])
def test_malformed_drain__is_left_to_the_services_to_refuse(value: str) -> None:
    assert drain_s({"SLUICE_DRAIN_S": value}) == 0
