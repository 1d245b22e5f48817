import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from edge_limiter.api import EDGE
from edge_limiter.app import DOOR
from edge_limiter.door import Door
from edge_limiter.limits import REPEAT_TRIES
from edge_limiter.ratelimit.policy import Policy
from edge_limiter.ratelimit.policy_set import Rule
from edge_limiter.repeats import Refused, Repeats
from edge_limiter.routes import ROUTES

REQUEST = b"POST /predict HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\n{}"
RULE = Rule(Policy("predict", 1, 60))
RULES = (RULE,)
REFUSED = Refused("POST", ROUTES[0], RULE, b"key")


@dataclass
class Flood:
    """One connection of a client that is above its limit. `known` tells of each time it was asked for, if it was."""

    edge: Any
    door: Door
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    known: list[bool] = field(default_factory=list)

    async def ask(self, data: bytes = REQUEST) -> tuple[int, dict[str, str], dict[str, Any]]:
        self.writer.write(data)
        return await self.answer()

    async def send(self, data: bytes) -> None:
        """Until the edge has it."""
        bytes_in, _ = self.door.bytes
        self.writer.write(data)
        async with asyncio.timeout(60):
            while self.door.bytes[0] == bytes_in:
                await asyncio.sleep(0)

    async def answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        async with asyncio.timeout(60):
            line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
            headers = dict(header.split(": ", 1) for header in lines)
            return (
                int(line.split()[1]),
                headers,
                json.loads(await self.reader.readexactly(int(headers["Content-Length"]))),
            )

    async def become_known(self) -> None:
        while not any(self.known):
            assert (await self.ask())[0] == 429
        self.known.clear()


@pytest.fixture
async def flood(
    start_edge: Callable[..., Awaitable[Any]], start_upstream: Callable[..., Awaitable[str]]
) -> AsyncIterator[Flood]:
    async def fine(_request: web.Request) -> web.Response:
        return web.json_response({})

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_RATE_LIMIT="1")
    await edge.store_is_up()
    assert await edge.post() == 200
    door = edge.service.app[DOOR]
    flood = Flood(edge, door, *await asyncio.open_connection("127.0.0.1", edge.port))
    again = door.again

    def watched(peer: str, data: bytes) -> bytes | None:
        answer: bytes | None = again(peer, data)
        flood.known.append(answer is not None)
        return answer

    door.again = watched
    yield flood
    flood.writer.close()


async def test_refused_request_that_comes_again__is_refused_and_counted_as_ever(flood: Flood) -> None:
    answers = [await flood.ask() for _ in range(6)]
    assert flood.known == [False, True, True, True]  # refused by the store, at once, remembered, and then known
    assert {status for status, _, _ in answers} == {429}
    assert len({tuple(headers) for _, headers, _ in answers}) == 1
    assert len({headers["X-Request-ID"] for _, headers, _ in answers}) == 6
    for _, headers, document in answers:
        assert document.pop("request_id") == headers["X-Request-ID"]
        assert document["detail"] == f"At most 1 in any 60 s. Try again in {headers['Retry-After']} s."
        assert headers["RateLimit"] == f'"predict";r=0;t={headers["Retry-After"]}'
    labels = {"route": "/predict", "method": "POST"}
    assert flood.edge.sample("sluice_http_requests_total", **labels, status="429") == 6
    assert flood.edge.sample("sluice_http_request_seconds_count", route="/predict") == 7
    labels = {"policy": "predict", "outcome": "refused"}
    assert flood.edge.sample("sluice_edge_decisions_total", **labels, source="store") == 1
    assert flood.edge.sample("sluice_edge_decisions_total", **labels, source="denied") == 5
    assert flood.edge.sample("sluice_edge_bytes_total", direction="in") >= 6 * len(REQUEST)


async def test_what_differs_in_a_byte__is_read(flood: Flood) -> None:
    await flood.become_known()
    assert (await flood.ask(REQUEST.replace(b"/predict", b"/missing")))[0] == 404
    assert not any(flood.known)
    for _ in range(4):
        assert [(await flood.ask(REQUEST + REQUEST))[0], (await flood.answer())[0]] == [429, 429]
    assert not any(flood.known)
    for _ in range(3):
        assert (await flood.ask(REQUEST + REQUEST[:9]))[0] == 429
        assert (await flood.ask(REQUEST[9:]))[0] == 429
    assert not any(flood.known)
    await flood.send(REQUEST[:-1])
    assert (await flood.ask(REQUEST[-1:]))[0] == 429
    assert not any(flood.known)
    status, headers, _ = await flood.ask(REQUEST.replace(b"edge\r\n", b"edge\r\nBad Name: x\r\n"))
    assert (status, headers["Connection"]) == (400, "close")


async def test_body_that_looks_like_a_known_request__is_a_body(flood: Flood) -> None:
    await flood.become_known()
    head = REQUEST.removesuffix(b"2\r\n\r\n{}") + b"%d\r\n\r\n" % len(REQUEST)
    assert (await flood.ask(head))[0] == 429
    _, bytes_out = flood.door.bytes
    await flood.send(REQUEST)
    assert flood.door.bytes[1] == bytes_out
    assert (await flood.ask())[0] == 429


async def test_client_that_wants_its_connection_closed__has_it_closed(flood: Flood) -> None:
    last = REQUEST.replace(b"edge\r\n", b"edge\r\nConnection: close\r\n")
    for _ in range(2):
        await flood.become_known()
        status, headers, _ = await flood.ask(last)
        assert (status, headers["Connection"], await flood.reader.read()) == (429, "close", b"")
        flood.writer.close()
        flood.reader, flood.writer = await asyncio.open_connection("127.0.0.1", flood.edge.port)


async def test_connection_on_which_known_requests_come__is_not_idle(flood: Flood) -> None:
    await flood.become_known()
    [connection] = [connection for connection in flood.door.connections if connection.is_refused]
    connection._incoming.since -= 40
    assert (await flood.ask())[0] == 429
    assert flood.known == [True]
    flood.door.sweep(asyncio.get_running_loop().time() + 30)
    assert (await flood.ask())[0] == 429


async def test_after_a_request_that_was_not_refused__nothing_is_looked_for(flood: Flood) -> None:
    await flood.become_known()
    assert (await flood.ask(REQUEST.replace(b"/predict", b"/missing")))[0] == 404
    flood.known.clear()
    assert (await flood.ask())[0] == 429
    assert flood.known == []


async def test_client_that_does_not_read__is_answered_only_once_it_does(flood: Flood) -> None:
    await flood.become_known()
    [connection] = [connection for connection in flood.door.connections if connection.is_refused]
    connection.pause_writing()
    _, bytes_out = flood.door.bytes
    await flood.send(REQUEST)
    assert flood.door.bytes[1] == bytes_out
    connection.resume_writing()
    assert (await flood.answer())[0] == 429


async def test_client_whose_requests_all_differ__is_soon_no_longer_looked_for(flood: Flood) -> None:
    for number in range(REPEAT_TRIES + 10):
        assert (await flood.ask(REQUEST.replace(b"/predict", b"/predict?%d" % number)))[0] == 429
    assert flood.known == REPEAT_TRIES * [False]


async def test_request_with_an_id_of_its_own__keeps_it(flood: Flood) -> None:
    told = REQUEST.replace(b"edge\r\n", b"edge\r\nX-Request-ID: mine\r\n")
    for _ in range(5):
        status, headers, document = await flood.ask(told)
        assert (status, headers["X-Request-ID"], document["request_id"]) == (429, "mine", "mine")
    assert not any(flood.known)


async def test_answer_to_head__has_no_body(flood: Flood) -> None:
    flood.edge.service.app[EDGE].proxy.policies.replace([Rule(Policy("reads", 1, 60), paths=("/dashboard",))])
    lines = []
    async with asyncio.timeout(60):
        for _ in range(6):
            flood.writer.write(b"HEAD /dashboard HTTP/1.1\r\nHost: edge\r\n\r\n")
            lines.append((await flood.reader.readuntil(b"\r\n\r\n")).split()[1])
    assert lines == [b"502", *5 * [b"429"]]


async def test_other_rules__are_asked_anew(flood: Flood) -> None:
    await flood.become_known()
    flood.edge.service.app[EDGE].proxy.policies.replace([Rule(Policy("wide", 5, 60), paths=("/predict",))])
    assert (await flood.ask())[0] == 200
    assert not any(flood.known)


async def test_service_that_drains__ends_the_connection_of_a_known_one_too(flood: Flood) -> None:
    await flood.become_known()
    flood.door.start_draining()
    status, headers, _ = await flood.ask()
    assert (status, headers["Connection"], await flood.reader.read()) == (429, "close", b"")


async def test_client_that_fits_again__is_answered(
    start_edge: Callable[..., Awaitable[Any]], start_upstream: Callable[..., Awaitable[str]]
) -> None:
    async def fine(_request: web.Request) -> web.Response:
        return web.json_response({})

    origin = await start_upstream(fine)
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=origin, EDGE_RATE_LIMIT="1", EDGE_RATE_WINDOW_S="1")
    await edge.store_is_up()
    flood = Flood(edge, edge.service.app[DOOR], *await asyncio.open_connection("127.0.0.1", edge.port))
    assert (await flood.ask())[0] == 200
    while (await flood.ask())[0] == 429:
        pass
    flood.writer.close()


def test_peer__has_repeats_of_its_own() -> None:
    repeats = Repeats()
    repeats.put("192.0.2.1", REQUEST, REFUSED, RULES)
    assert repeats.get("192.0.2.1", REQUEST, RULES) is REFUSED
    assert repeats.get("192.0.2.2", REQUEST, RULES) is None
    assert repeats.get("192.0.2.1", REQUEST + b" ", RULES) is None


def test_what_was_refused_under_other_rules__is_forgotten_and_with_it_these_rules() -> None:
    repeats = Repeats()
    held = sys.getrefcount(RULES), sys.getrefcount(REFUSED)
    repeats.put("192.0.2.1", REQUEST, REFUSED, RULES)
    other = (Rule(Policy("wide", 5, 60)),)
    assert repeats.get("192.0.2.1", REQUEST, other) is None
    repeats.put("192.0.2.2", REQUEST, Refused("POST", ROUTES[0], other[0], b"key"), other)
    assert (sys.getrefcount(RULES), sys.getrefcount(REFUSED)) == held


def test_repeats__are_bounded_oldest_out_first() -> None:
    repeats = Repeats(2)
    for number in range(3):
        repeats.put("192.0.2.1", b"%d" % number, REFUSED, RULES)
    assert [repeats.get("192.0.2.1", b"%d" % number, RULES) for number in range(3)] == [None, REFUSED, REFUSED]
