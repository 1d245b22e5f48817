import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from structlog.testing import capture_logs

from edge_limiter.places import Places

StartEdge = Callable[..., Awaitable[Any]]


def places(refused: list[str] | None = None) -> Places:
    """Twenty, of which a proxy may take any number."""
    reasons = refused if refused is not None else []
    return Places(20, lambda peer: None if peer == "proxy" else peer.encode(), reasons.append)


def test_one_client__gets_half_of_all_places_and_each_other_one_its_share() -> None:
    refused: list[str] = []
    some = places(refused)
    assert sum(some.take("crowd") for _ in range(20)) == 10
    assert [some.take("a"), some.take("a"), some.take("a"), some.take("b")] == [True, True, False, True]
    assert refused == ["share"] * 11


def test_trusted_proxy__gets_all_places() -> None:
    some = places()
    assert sum(some.take("proxy") for _ in range(30)) == 20


def test_client_that_leaves__makes_room_for_itself() -> None:
    some = places()
    for _ in range(10):
        assert some.take("crowd")
    assert not some.take("crowd")
    some.leave("crowd")
    assert some.take("crowd")


def test_place_that_is_given_back__is_one_of_all_and_of_its_clients_share() -> None:
    some = places()
    for _ in range(16):
        assert some.take("proxy")
    for _ in range(3):
        assert [some.take("a"), some.take("a"), some.take("a")] == [True, True, False]
        some.leave("a")
        assert [some.take("a"), some.take("a")] == [True, False]
        for _ in range(2):
            some.leave("a")
    assert [some.take("proxy") for _ in range(5)] == [True] * 4 + [False]
    some.leave("proxy")
    assert [some.take("proxy"), some.take("proxy")] == [True, False]
    assert not some._held  # an address that was here once costs nothing


def test_refusals__are_told_once_until_there_is_room_again() -> None:
    some = places()
    with capture_logs() as logs:
        for _ in range(15):
            some.take("crowd")
        some.leave("crowd")
        for _ in range(2):
            some.take("crowd")
        assert [line["because"] for line in logs] == ["share"]
        for _ in range(2):
            some.leave("crowd")
        for _ in range(5):
            some.take("crowd")
        assert [line["because"] for line in logs] == ["share", "share"]
        for _ in range(30):
            some.take("proxy")
        assert [line["because"] for line in logs] == ["share", "share", "full"]


async def test_address_that_takes_all_it_can_get__leaves_places_for_others(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_MAX_CONNECTIONS=40)
    async with AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", edge.port, local_addr=("127.0.9.3", 0))
            stack.callback(writer.close)
        async with edge.http.get("/openapi.json") as response:
            assert response.status == 200
        assert edge.sample("sluice_edge_connections_refused_total", reason="share") >= 30
