"""Invalid queries are rejected with the field's name, before any query to PostgreSQL."""

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.runtime.metrics import HttpMetrics
from metrics.alerting.rule_store import ThresholdStore
from metrics.alerting.store import AlertStore
from metrics.api.resources import RESOURCES, Resources
from metrics.api.routes import ERRORS, routes
from metrics.query.aggregate import Aggregates
from metrics.query.broadcast import AggregateBroadcaster
from metrics.query.feedback import FeedbackStore
from metrics.query.predictions import Predictions
from metrics.query.rollups import Rollups
from metrics.query.shared import SharedAggregates
from metrics.storage.database import Database

Client = TestClient[web.Request, web.Application]
RULE = {"name": "slow", "metric": "latency_ms.p95", "above": 100.0}


class NoDatabase:
    """A database that fails the test if it is used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"PostgreSQL was asked for a {name}")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of the routes, without a usable database."""

    async def lag_s() -> float:
        return 0.0

    database = cast(Database, NoDatabase())
    aggregates = Aggregates(Rollups(database), lag_s, now=time.time)
    shared = SharedAggregates(aggregates, timeout_s=5, now=time.monotonic)
    live = AggregateBroadcaster(aggregates, interval_s=1, max_followers=1)
    stores = (
        ThresholdStore(database),
        AlertStore(database, interval_s=5, now=time.time),
        Predictions(database),
        FeedbackStore(database),
    )
    app = create_app(AppConfig(HttpMetrics(CollectorRegistry()), errors=ERRORS))
    app.add_routes(routes())
    app[RESOURCES] = Resources(Rollups(database), aggregates, shared, *stores, live)
    async with TestClient(TestServer(app)) as client:
        yield client


async def fields_of(response: ClientResponse) -> list[str]:
    assert response.content_type == "application/problem+json"
    return [error["field"] for error in (await response.json())["errors"]]


BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "window"),
    ({"window": "2h"}, "window"),
    ({"window": "1h", "end": "2026-01-01T00:00:00Z"}, "window"),
    ({"start": "2026-01-01T00:00:00Z"}, "end"),
    ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "end"),
    ({"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00Z"}, "start"),
    ({"start": "1926-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "start"),
    ({"start": "2024-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "start"),
    ({"window": "30d", "bucket": "1m"}, "bucket"),
    ({"start": "2025-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z", "bucket": "1m"}, "bucket"),
    ({"start": "2024-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z", "bucket": "1m"}, "start"),  # 10^6 buckets
    ({"window": "1h", "bucket": "1s"}, "bucket"),
    ({"window": "1h", "group_by": ["text"]}, "group_by.0"),
    ({"window": "1h", "filters": {"outcome": "bad"}}, "filters.outcome"),
    ({"window": "1h", "unknown": 1}, "unknown"),
]


async def test_request_that_can_be_answered__asks_postgresql(client: Client) -> None:
    assert (await client.post("/metrics/aggregated", json={"window": "1h"})).status == 500
    assert (await client.get("/metrics/predictions")).status == 500


async def test_unanswerable_request__names_the_field_and_asks_postgresql_nothing(client: Client) -> None:
    for body, field in BAD_REQUESTS:
        response = await client.post("/metrics/aggregated", json=body)
        assert response.status == 422, body
        assert await fields_of(response) == [field]


BAD_RULES: list[tuple[list[Any], str]] = [
    ([RULE | {"metric": "luck"}], "rules.0.metric"),
    ([RULE | {"below": 1.0}], "rules.0"),
    ([RULE | {"resolve_at": 101.0}], "rules.0.resolve_at"),
    ([RULE | {"window": "2h"}], "rules.0.window"),
    ([RULE | {"above": float("nan")}], "rules.0.above"),
    ([RULE | {"reference": "1h"}], "rules.0.reference"),
    ([RULE, RULE], "rules"),
]


async def test_rules_that_make_no_sense__name_the_field(client: Client) -> None:
    for rules, field in BAD_RULES:
        response = await client.put("/metrics/thresholds", json={"rules": rules})
        assert response.status == 422, rules
        assert await fields_of(response) == [field]


BAD_QUERIES = [
    ("/metrics/predictions?limit=0", "limit"),
    ("/metrics/predictions?limit=1001", "limit"),
    ("/metrics/predictions?cursor=x", "cursor"),
    ("/metrics/predictions?model=%00", "model"),
    ("/metrics/predictions?request_id=x", "request_id"),
    ("/metrics/predictions?min_score=2", "min_score"),
    ("/metrics/predictions?window=7d&order=score", "window"),
    ("/metrics/predictions?window=7d&client=c", "window"),
    ("/metrics/predictions?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
    ("/metrics/predictions?start=1926-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
    ("/metrics/predictions?window=1h&end=2026-01-01T00:00:00Z", "window"),
    ("/metrics/drift?reference=1y", "reference"),
    ("/metrics/drift?reference_end=1926-01-01T00:00:00Z", "reference_end"),
    ("/metrics/drift?start=2026-01-01T00:00:00Z", "end"),
    ("/metrics/stream?window=1s", "window"),
    ("/metrics/thresholds/history?limit=0", "limit"),
    ("/metrics/thresholds/history?limit=101", "limit"),
    ("/metrics/thresholds/history?cursor=0", "cursor"),
    ("/metrics/thresholds/history?cursor=x", "cursor"),
]


async def test_unanswerable_query__names_the_field_and_asks_postgresql_nothing(client: Client) -> None:
    for path, field in BAD_QUERIES:
        response = await client.get(path)
        assert response.status == 422, path
        assert await fields_of(response) == [field]
        assert {error["location"] for error in (await response.json())["errors"]} == {"query"}
