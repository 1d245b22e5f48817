from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge_limiter.app import DOOR
from edge_limiter.unread import Unread


class Client:
    def __init__(self, peer: str = "192.0.2.1") -> None:
        self.peer = peer
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


@pytest.fixture
def cuts() -> list[str]:
    return []


@pytest.fixture
def unread(cuts: list[str]) -> Unread:
    return Unread(100, str.encode, cuts.append)


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


def test_beyond_the_limit__who_takes_most_loses_its_own_connections_and_nobody_elses(unread: Unread) -> None:
    slow = Client("192.0.2.2")
    unread.add(slow, 20)
    flood = [Client() for _ in range(9)]
    for client in flood:
        unread.add(client, 20)
    assert not slow.is_cut
    assert [client.is_cut for client in flood] == 5 * [True] + 4 * [False]
    for client in (slow, *flood):
        unread.remove(client)
    others = [Client(f"198.51.100.{number}") for number in range(6)]
    for client in others:
        unread.add(client, 20)
    assert [client.is_cut for client in others] == [True] + 5 * [False]


async def test_edge__tells_clients_by_their_addresses(start_edge: Callable[..., Awaitable[Any]]) -> None:
    unread = (await start_edge()).service.app[DOOR].unread
    slow, flood = Client("192.0.2.2"), [Client() for _ in range(4)]
    for client in (slow, *flood):
        unread.add(client, 20 << 20)
    assert [client.is_cut for client in (slow, *flood)] == [False, True, True, False, False]


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
