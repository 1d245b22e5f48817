import pytest
from structlog.testing import capture_logs

from edge_limiter.unread import Unread


class Client:
    def __init__(self) -> None:
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


@pytest.fixture
def cuts() -> list[str]:
    return []


@pytest.fixture
def unread(cuts: list[str]) -> Unread:
    return Unread(100, cuts.append)


def test_beyond_the_limit__those_that_have_read_nothing_for_longest_are_cut_off(
    unread: Unread, cuts: list[str]
) -> None:
    clients = [Client() for _ in range(4)]
    for client in clients:
        unread.add(client, 40)
    assert [client.is_cut for client in clients] == [True, True, False, False]
    assert (unread.held_bytes, cuts) == (80, ["unread"] * 2)


def test_client_that_caught_up__is_no_longer_the_slowest(unread: Unread) -> None:
    first, second = Client(), Client()
    unread.add(first, 60)
    unread.add(second, 40)
    unread.remove(first)
    unread.add(first, 61)
    assert (first.is_cut, second.is_cut) == (False, True)


def test_client_that_leaves_or_was_cut_off__holds_nothing(unread: Unread) -> None:
    first, second = Client(), Client()
    unread.add(first, 80)
    unread.add(second, 80)
    unread.remove(first)
    unread.remove(second)
    assert unread.held_bytes == 0


def test_cutting_off__is_told_once_until_half_the_room_is_free(unread: Unread) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            last = Client()
            unread.add(last, 60)
        assert len(logs) == 1
        unread.remove(last)
        unread.add(Client(), 60)
        unread.add(Client(), 60)
    assert len(logs) == 2
