import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from redis.asyncio import Redis

from common.contracts.events import EVENT_ADAPTER, EVENT_FIELD, STREAM, CounterEvent
from common.journal.recorder import ClientHasher
from launcher.postgres import Postgres
from launcher.testing import migrate

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]


async def fine(_request: web.Request) -> web.Response:
    return web.json_response({"label": "POSITIVE"})


@pytest.mark.parametrize("replicas", [1, 2])
async def test_hundred_requests_at_once__exactly_sixty_are_answered(
    start_edge: StartEdge, start_upstream: StartUpstream, replicas: int
) -> None:
    origin = await start_upstream(fine)
    edges = [await start_edge(EDGE_UPSTREAM_INFERENCE=origin) for _ in range(replicas)]
    statuses = Counter(await asyncio.gather(*(edges[number % replicas].post() for number in range(100))))
    assert statuses == {200: 60, 429: 40}


async def test_flood_from_a_refused_client__costs_the_database_nothing(
    start_edge: StartEdge, start_upstream: StartUpstream, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_RATE_LIMIT="3")
    for _ in range(4):
        await edge.post()
    asked = edge.sample("sluice_edge_decision_seconds_count")
    assert set(await asyncio.gather(*(edge.post() for _ in range(200)))) == {429}
    assert edge.sample("sluice_edge_decision_seconds_count") == asked
    assert edge.sample("sluice_edge_decisions_total", policy="predict", outcome="refused", source="denied") == 200
    assert await database.fetchval("SELECT count(*) FROM edge.admissions") == 1


async def test_database_holds__no_plain_address(
    start_edge: StartEdge, start_upstream: StartUpstream, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EVENTS_HASH_KEY="k")
    await edge.post()
    key = await database.fetchval("SELECT key FROM edge.admissions")
    assert len(key) == 16
    assert bytes([127, 0, 0, 1]) not in key


async def test_database_killed__limits_go_on_locally_and_are_exact_again_without_a_restart(
    start_edge: StartEdge, start_upstream: StartUpstream, own_postgres: Callable[[], Postgres]
) -> None:
    server = own_postgres()
    migrate("edge_limiter", server.url())
    edge = await start_edge(
        DATABASE_URL=server.url(), EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_RATE_LIMIT="10"
    )
    await edge.store_is_up()
    assert [await edge.post() for _ in range(4)] == [200] * 4
    server.kill()
    assert Counter([await edge.post() for _ in range(10)]) == {200: 6, 429: 4}
    assert edge.sample("sluice_edge_store_up") == 0
    assert (await edge.service.readiness.report())[1]["database"] == "degraded"
    server.start()
    await edge.store_is_up()
    assert await edge.post() == 200  # the killed server kept what it had committed: four of ten
    assert edge.sample("sluice_edge_decisions_total", policy="predict", outcome="allowed", source="store") == 5
    assert edge.sample("sluice_edge_decisions_total", policy="predict", outcome="allowed", source="local") == 6


async def test_three_edges_and_a_database_that_is_killed_and_returns__admit_what_is_promised(
    start_edge: StartEdge, start_upstream: StartUpstream, own_postgres: Callable[[], Postgres]
) -> None:
    server = own_postgres()
    migrate("edge_limiter", server.url())
    origin = await start_upstream(fine)
    settings = {"DATABASE_URL": server.url(), "EDGE_UPSTREAM_INFERENCE": origin, "EDGE_LIMIT_DURABLE": "true"}
    edges = [await start_edge(EDGE_RATE_LIMIT="12", **settings) for _ in range(3)]

    async def told(name: str, value: float) -> None:
        async with asyncio.timeout(60):
            while {edge.sample(name) for edge in edges} != {value}:
                await asyncio.sleep(0.01)

    async def admitted(requests: int) -> int:
        return [await edges[number % 3].post() for number in range(requests)].count(200)

    await told("sluice_edge_store_up", 1)
    await told("sluice_edge_replicas", 3)
    exact = [await edges[0].post() for _ in range(6)].count(200)
    server.kill()
    local = await admitted(45)
    server.start()
    await told("sluice_edge_store_up", 1)
    again = await admitted(45)
    assert (exact, local, again) == (6, 4 + 4, 6)  # edge 0 had let through more than its share already
    assert exact + local + again <= 2 * 12


async def test_three_edges_started_without_the_database__share_the_limit_as_the_operator_expects(
    start_edge: StartEdge, start_upstream: StartUpstream, free_port: Callable[[], int]
) -> None:
    origin = await start_upstream(fine)
    away = f"postgresql://u:p@127.0.0.1:{free_port()}/none"
    settings = {"DATABASE_URL": away, "EDGE_UPSTREAM_INFERENCE": origin, "EDGE_REPLICAS": "3"}
    edges = [await start_edge(EDGE_RATE_LIMIT="10", **settings) for _ in range(3)]
    statuses = Counter([await edges[number % 3].post() for number in range(30)])
    assert statuses == {200: 10 + 3 - 1, 429: 18}


async def test_database_away_at_the_start__edge_starts_and_limits_locally(
    start_edge: StartEdge, start_upstream: StartUpstream, free_port: Callable[[], int]
) -> None:
    edge = await start_edge(
        DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/none",
        EDGE_UPSTREAM_INFERENCE=await start_upstream(fine),
        EDGE_RATE_LIMIT="2",
    )
    assert [await edge.post() for _ in range(3)] == [200, 200, 429]
    status, document = await edge.health(lambda found: found["upstreams"]["inference"]["status"] == "ok")
    assert (status, document["status"], document["limits"]) == (200, "degraded", "local")
    assert document["database"]["status"] == "down"


async def test_database_away_and_policy_closed__is_503_not_429(
    start_edge: StartEdge, start_upstream: StartUpstream, free_port: Callable[[], int]
) -> None:
    edge = await start_edge(
        DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/none",
        EDGE_UPSTREAM_INFERENCE=await start_upstream(fine),
        EDGE_ON_STORE_ERROR="closed",
    )
    async with edge.http.post("/predict", json={}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    async with edge.http.get("/health") as response:
        assert response.status == 503


async def test_rejections_and_failed_predictions__are_on_the_stream_as_counters(
    start_edge: StartEdge,
    start_upstream: StartUpstream,
    redis_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def break_all_but_predict(request: web.Request) -> web.StreamResponse:
        if request.path != "/predict":
            assert request.transport is not None
            request.transport.abort()
        return await fine(request)

    monkeypatch.setattr("edge_limiter.proxy.rejections.WRITE_TIMEOUT_S", 60.0)
    edge = await start_edge(
        REDIS_HOST=redis_settings["host"],
        REDIS_PORT=str(redis_settings["port"]),
        REDIS_PASSWORD=redis_settings["password"],
        EDGE_UPSTREAM_INFERENCE=await start_upstream(break_all_but_predict),
        EDGE_RATE_LIMIT="3",
    )
    async with edge.http.post("/classify", json={"input": "fine"}) as response:
        assert response.status == 502
    for path in ("/metrics/count", "/models"):  # neither is a prediction
        async with edge.http.get(path) as response:
            assert response.status == 502
    for _ in range(7):
        await edge.post()
    await edge.runner.cleanup()
    async with Redis(**redis_settings, decode_responses=True) as redis:
        entries: Any = await redis.xrange(STREAM)
    events = [EVENT_ADAPTER.validate_json(fields[EVENT_FIELD]) for _, fields in entries]
    counted: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        assert isinstance(event, CounterEvent)
        counted[event.route, event.policy, event.outcome] += event.n
        is_named = [client for client, _ in event.clients or ()] == [ClientHasher("key")("127.0.0.1")]
        assert is_named == (event.outcome == "limited")
    assert counted == {
        ("/predict", "predict", "limited"): 5,
        ("/classify", "predict", "bad_gateway"): 1,
    }


async def test_redis_that_hangs__delays_no_request_and_no_shutdown(
    start_edge: StartEdge, start_upstream: StartUpstream, start_raw_upstream: Callable[..., Awaitable[str]]
) -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    port = (await start_raw_upstream(hang)).rpartition(":")[2]
    edge = await start_edge(
        REDIS_PORT=port, REDIS_TIMEOUT_S="600", EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_RATE_LIMIT="1"
    )
    async with asyncio.timeout(120):
        assert Counter([await edge.post() for _ in range(50)]) == {200: 1, 429: 49}
        assert (await edge.service.readiness.report())[0] == "ok"
        await edge.runner.cleanup()
