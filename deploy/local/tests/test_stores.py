"""Which stores run here, and on which ports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import stores
from launcher.ports import HIGHEST, LOWEST

OTHER_POSTGRES = {"DATABASE_URL": "postgresql://db.example/x"}


def test_port__is_that_of_last_time(tmp_path: Path) -> None:
    [first], [again] = (stores.embedded(OTHER_POSTGRES, tmp_path) for _ in range(2))
    assert first.port == again.port


@pytest.mark.parametrize("noted", ["", "6379x", "-1", "99999999"])
def test_port_that_a_full_disk_or_an_editor_spoilt__is_chosen_anew(tmp_path: Path, noted: str) -> None:
    (tmp_path / "valkey.port").write_text(noted)
    [server] = stores.embedded(OTHER_POSTGRES, tmp_path)
    assert 0 < server.port < 1 << 16
    assert (tmp_path / "valkey.port").read_text() == str(server.port)


def test_port_that_a_service_needs_now__is_given_up(tmp_path: Path) -> None:
    [first] = stores.embedded(OTHER_POSTGRES, tmp_path)
    [again] = stores.embedded(OTHER_POSTGRES, tmp_path, {first.port})
    assert first.port != again.port
    assert (tmp_path / "valkey.port").read_text() == str(again.port)


def test_ports_of_a_first_start__are_neither_reserved_nor_the_same(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    left = {free_port(), free_port()}
    reserved = {*range(LOWEST, HIGHEST + 1)} - left
    assert {server.port for server in stores.embedded({}, tmp_path, reserved)} == left
