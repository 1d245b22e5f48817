"""Which stores are embedded, and their ports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import stores
from launcher.ports import HIGHEST, LOWEST, share_of

OTHER_POSTGRES = {"DATABASE_URL": "postgresql://db.example/x"}


def test_port__is_the_same_at_the_next_start(tmp_path: Path) -> None:
    [first], [again] = (stores.embedded(OTHER_POSTGRES, tmp_path) for _ in range(2))
    assert first.port == again.port


@pytest.mark.parametrize("noted", ["", "6379x", "-1", "99999999"])
def test_port__damaged_file_is_replaced(tmp_path: Path, noted: str) -> None:
    (tmp_path / "valkey.port").write_text(noted)
    [server] = stores.embedded(OTHER_POSTGRES, tmp_path)
    assert 0 < server.port < 1 << 16
    assert (tmp_path / "valkey.port").read_text() == str(server.port)


def test_port__reserved_by_a_service_is_replaced(tmp_path: Path) -> None:
    [first] = stores.embedded(OTHER_POSTGRES, tmp_path)
    [again] = stores.embedded(OTHER_POSTGRES, tmp_path, {first.port})
    assert first.port != again.port
    assert (tmp_path / "valkey.port").read_text() == str(again.port)


def test_ports__are_distinct_and_not_reserved(tmp_path: Path, free_port: Callable[[], int]) -> None:
    left = {free_port(), free_port()}
    reserved = {*range(LOWEST, HIGHEST + 1)} - left
    assert {server.port for server in stores.embedded({}, tmp_path, reserved)} == left


def test_shares_of_ports__are_disjoint_and_not_ephemeral() -> None:
    for shares in (1, 2, 3, 4):
        ports = [port for number in range(shares) for port in share_of(number, shares)]
        assert len(set(ports)) == len(ports) > 22_000
        assert LOWEST <= min(ports) and max(ports) <= HIGHEST
