"""The routes of the real app with real stores."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict
from pydantic import SecretStr
from redis.asyncio import Redis

from common.contracts.aggregates import Aggregate, DriftReport, PredictionPage
from common.service import Service
from metrics.alerting.rules import Thresholds
from metrics.api.predictions import EXPORT_ROWS, SLICE_BYTES, _send
from metrics.app import create_service
from metrics.ingest.stream import StreamAdmin
from metrics.ranges import as_time, as_us
from metrics.settings import MetricsSettings

Client = TestClient[web.Request, web.Application]
RULE = {"name": "slow", "metric": "latency_ms.p95", "above": 100.0}


@pytest.fixture
def settings(metrics_url: str, redis_settings: dict[str, Any]) -> MetricsSettings:
    return MetricsSettings(
        database_url=metrics_url,
        redis_host=redis_settings["host"],
        redis_port=redis_settings["port"],
        redis_password=redis_settings["password"],
    )


@pytest.fixture
async def client(settings: MetricsSettings) -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_service(settings).app)) as client:
        yield client


@pytest.fixture
async def now_us(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return seconds * 1_000_000 + micros


@pytest.fixture
def ingested(client: Client, redis: Redis, send: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that sends events, waits until they are ingested, and returns the last hour's aggregate."""

    async def feed(*events: Any) -> dict[str, Any]:
        await send(*events)
        maintenance = StreamAdmin(redis)
        async with asyncio.timeout(60):
            while (await maintenance.backlog()).entries != 0:  # an event younger than a millisecond has a lag of 0
                pass
        return await aggregated(client, window="1h")

    return feed


async def aggregated(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/metrics/aggregated", json=body)
    assert response.status == 200, await response.text()
    return dict(await response.json())


async def test_count__is_of_answered_predictions_only(
    client: Client,
    ingested: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    now_us: int,
) -> None:
    assert await (await client.get("/metrics/count")).json() == {"count": 0}
    answered = [prediction(at_us=now_us) for _ in range(7)]
    await ingested(*answered, answered[0], prediction(outcome="error", at_us=now_us), counter(n=9, at_us=now_us))
    assert await (await client.get("/metrics/count")).json() == {"count": 7}


async def test_aggregate__tells_everything_about_the_window(
    client: Client,
    ingested: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    now_us: int,
) -> None:
    body = await ingested(
        *(prediction(at_us=now_us, latency_us=1000 * n, label="POSITIVE") for n in range(1, 10)),
        prediction(at_us=now_us, latency_us=20_000, label="NEGATIVE", score=0.25),
        prediction(at_us=now_us, outcome="timeout", label=None, score=None),
        counter(at_us=now_us, n=9),
    )
    Aggregate.model_validate_json(await (await client.post("/metrics/aggregated", json={"window": "1h"})).read())
    assert body["requests"] == 20
    assert body["predictions"] == 10
    assert body["rate_limited"] == 9
    assert body["errors"] == {"timeout": 1}
    assert body["error_rate"] == pytest.approx(1 / 11)
    latency = body["latency_ms"]
    assert (latency["n"], latency["mean"], latency["max"]) == (10, 6.5, 20.0)
    assert [latency[name] for name in ("p50", "p90", "p95", "p99")] == pytest.approx([5, 9, 20, 20], rel=0.0109)
    assert body["labels"] == [
        {"label": "POSITIVE", "count": 9, "share": 0.9},
        {"label": "NEGATIVE", "count": 1, "share": 0.1},
    ]
    assert body["confidence"] == {"mean": pytest.approx(0.7), "histogram": [0, 0, 1, 0, 0, 0, 0, 9, 0, 0]}
    assert body["previous"]["requests"] == 0
    assert len(body["series"]) in (60, 61)
    assert body["thresholds"][0]["rule"]["name"] == "error-rate"


async def test_groups__are_by_the_asked_names(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    await ingested(*(prediction(at_us=now_us, model=m, label=label) for m, label in ("aP", "aN", "bP", "aP")))
    groups = (await aggregated(client, window="1h", group_by=["model", "label", "model"]))["groups"]
    assert [(group["key"], group["requests"]) for group in groups] == [
        ({"model": "a", "label": "P"}, 2),
        ({"model": "a", "label": "N"}, 1),
        ({"model": "b", "label": "P"}, 1),
    ]


async def test_filter_with_a_nul__matches_nothing(client: Client) -> None:
    assert (await aggregated(client, window="1h", filters={"model": "\x00"}))["requests"] == 0


async def test_thresholds__are_replaced_by_who_read_the_newest(client: Client) -> None:
    read = await client.get("/metrics/thresholds")
    assert (read.status, read.headers["ETag"]) == (200, '"0"')
    first = await client.put("/metrics/thresholds", json={"rules": [RULE]})
    assert (first.status, first.headers["ETag"]) == (200, '"1"')
    second = await client.put("/metrics/thresholds", json={"rules": []}, headers={"If-Match": '"1"'})
    assert (second.status, second.headers["ETag"]) == (200, '"2"')
    assert await (await client.get("/metrics/thresholds")).json() == {"rules": []}


async def test_history__has_every_version_with_what_its_etag_was(client: Client, now_us: int) -> None:
    assert await (await client.get("/metrics/thresholds/history")).json() == {"versions": [], "cursor": None}
    written = []
    for above in (1.0, 2.0, 3.0):
        rules = [RULE | {"above": above}]
        response = await client.put("/metrics/thresholds", json={"rules": rules}, headers={"If-Match": "*"})
        written.append((response.headers["ETag"], Thresholds.model_validate(await response.json())))
    first = await (await client.get("/metrics/thresholds/history", params={"limit": 2})).json()
    rest = await (await client.get("/metrics/thresholds/history", params={"cursor": first["cursor"]})).json()
    assert rest["cursor"] is None
    found = [*first["versions"], *rest["versions"]]
    assert [(one["etag"], Thresholds.model_validate(one["document"])) for one in found] == written[::-1]
    moments = [datetime.fromisoformat(one["at"]) for one in found]
    assert moments == sorted(moments, reverse=True)
    assert abs(as_us(moments[-1]) - now_us) < 60_000_000


async def test_document_as_read__can_be_written_back(client: Client) -> None:
    read = await client.get("/metrics/thresholds")
    written = await client.put(
        "/metrics/thresholds", json=await read.json(), headers={"If-Match": read.headers["ETag"]}
    )
    assert written.status == 200
    assert await written.json() == await read.json()


@pytest.mark.parametrize(
    ("if_match", "status"),
    [(None, 428), ('"0"', 412), ('W/"1"', 412), ("1", 412), ("", 412), ('"0", "1"', 200), ('"1"', 200), ("*", 200)],
)
async def test_second_write__needs_the_version_it_replaces(client: Client, if_match: str | None, status: int) -> None:
    await client.put("/metrics/thresholds", json={"rules": [RULE]})
    headers = {} if if_match is None else {"If-Match": if_match}
    response = await client.put("/metrics/thresholds", json={"rules": []}, headers=headers)
    assert response.status == status
    if status != 200:
        assert [(error["location"], error["field"]) for error in (await response.json())["errors"]] == [
            ("header", "If-Match")
        ]
    rules = (await (await client.get("/metrics/thresholds")).json())["rules"]
    assert len(rules) == (0 if status == 200 else 1)


@pytest.mark.parametrize("if_match", ["1", 'W/"1"', "", '"one"'])
async def test_if_match_that_names_no_version__is_not_told_that_the_thresholds_changed(
    client: Client, if_match: str
) -> None:
    """Reading again would return the same tag, so that advice would never help."""
    await client.put("/metrics/thresholds", json={"rules": [RULE]})
    response = await client.put("/metrics/thresholds", json={"rules": []}, headers={"If-Match": if_match})
    assert response.status == 412
    assert (await response.json())["detail"].startswith("If-Match names no version: ")


async def test_if_match_on_two_lines__is_one_list(client: Client) -> None:
    await client.put("/metrics/thresholds", json={"rules": [RULE]})
    headers = CIMultiDict([("If-Match", '"0"'), ("If-Match", '"1"')])
    assert (await client.put("/metrics/thresholds", json={"rules": []}, headers=headers)).status == 200


async def test_threshold_in_force__is_judged_in_every_aggregate(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    rule = {"name": "many", "metric": "predictions", "above": 1.0}
    await client.put("/metrics/thresholds", json={"rules": [rule]})
    body = await ingested(*(prediction(at_us=now_us) for _ in range(3)))
    [state] = body["thresholds"]
    assert (state["rule"]["name"], state["current"], state["breached"]) == ("many", 3.0, True)


async def test_bad_entries__do_not_hold_up_the_others(
    client: Client, ingested: Callable[..., Any], dead: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    await ingested(b"{", prediction(at_us=now_us), prediction(at_us=now_us, request_id="\x00"))
    assert await (await client.get("/metrics/count")).json() == {"count": 1}
    assert sorted(await dead()) == ["malformed", "refused"]


async def test_specification__lists_every_route(client: Client) -> None:
    paths = (await (await client.get("/openapi.json")).json())["paths"]
    assert {(path, method) for path, item in paths.items() for method in item} == {
        ("/metrics/count", "get"),
        ("/metrics/aggregated", "get"),
        ("/metrics/aggregated", "post"),
        ("/metrics/feedback", "post"),
        ("/metrics/thresholds", "get"),
        ("/metrics/thresholds", "put"),
        ("/metrics/thresholds/history", "get"),
        ("/metrics/alerts", "get"),
        ("/metrics/drift", "get"),
        ("/metrics/predictions", "get"),
        ("/metrics/stream", "get"),
    }


async def test_deadline_too_short__is_504(client: Client) -> None:
    response = await client.get("/metrics/count", headers={"X-Request-Timeout-Ms": "0"})
    assert response.status == 504


async def test_database_away__is_503_with_retry_after_until_it_is_back(
    own_postgres: Callable[..., Any], settings: MetricsSettings, redis: Redis
) -> None:
    server = own_postgres()
    away = settings.model_copy(update={"database_url": settings.database_url.__class__(server.url())})
    service = create_service(away)
    server.stop()
    async with TestClient(TestServer(service.app)) as client:
        for call in (
            client.get("/metrics/count"),
            client.post("/metrics/aggregated", json={"window": "1h"}),
            client.get("/metrics/thresholds"),
            client.put("/metrics/thresholds", json={"rules": []}),
        ):
            response = await call
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
        async with asyncio.timeout(30):
            while (state := (await service.readiness.report())[1]["database"]) == "degraded":
                pass  # a busy machine exceeded the check's second
        assert state == "failed"


async def test_redis_away__leaves_aggregates_that_say_the_lag_is_unknown(
    own_valkey: Callable[..., Any], settings: MetricsSettings, rows: Callable[..., Any]
) -> None:
    server = own_valkey()
    service = create_service(
        settings.model_copy(
            update={"redis_port": server.port, "redis_password": settings.redis_password.__class__(server.password)}
        )
    )
    async with TestClient(TestServer(service.app)) as client, asyncio.timeout(60):
        while (lag_s := (await aggregated(client, window="1h"))["lag_s"]) is None:
            pass  # a busy machine exceeded the half-second
        assert lag_s == 0
        server.kill()
        while (await aggregated(client, window="1h"))["lag_s"] is not None:
            pass  # results are reused for a second
        while (report := await service.readiness.report())[1]["database"] == "degraded":
            pass  # likewise
        assert report == ("degraded", {"database": "ok", "redis": "degraded"})


async def test_predictions__are_paged_from_the_newest(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    events = [prediction(at_us=now_us - n * 1_000_000) for n in range(4)]
    id = UUID(int=now_us // 1_000 << 80 | 7 << 76 | 2 << 62)
    events.append(one := prediction(at_us=now_us - 5_000_000, request_id=str(id)))
    await ingested(*events)
    first = await (await client.get("/metrics/predictions", params={"limit": 3})).json()
    rest = await (await client.get("/metrics/predictions", params={"limit": 3, "cursor": first["cursor"]})).json()
    assert [one["id"] for one in first["predictions"] + rest["predictions"]] == [event.id for event in events]
    assert rest["cursor"] is None
    PredictionPage.model_validate(first)
    found = await (await client.get("/metrics/predictions", params={"request_id": one.request_id})).json()
    assert [row["id"] for row in found["predictions"]] == [one.id]


@pytest.mark.parametrize("media", ["text/csv", "application/x-ndjson"])
async def test_export__holds_every_matching_row(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int, media: str
) -> None:
    events = [prediction(at_us=now_us - n, label="PN"[n % 2], text='a "b",\nc') for n in range(EXPORT_ROWS + 500)]
    await ingested(*events)
    response = await client.get(
        "/metrics/predictions?label=P&outcome=ok&limit=1", headers={"Accept": f"{media};q=0.9, */*;q=0.1"}
    )
    assert (response.status, response.content_type) == (200, media)
    text = await response.text()
    rows = list(csv.DictReader(io.StringIO(text, newline=""))) if media == "text/csv" else ndjson(text)
    assert [row["id"] for row in rows] == [event.id for event in events if event.label == "P"]
    assert {row["text"] for row in rows} == {'a "b",\nc'}


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("text/csv;q=0, application/json", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/csv;q=0.5, application/x-ndjson;Q=0.7", "application/x-ndjson"),
        ("text/csv;q=lots", "application/json"),
        ("text/csv;q=0.1, */*", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
    ],
)
async def test_export__is_the_one_that_the_client_prefers(client: Client, accept: str, media: str) -> None:
    response = await client.get("/metrics/predictions", headers={"Accept": accept})
    assert (response.status, response.content_type) == (200, media)
    assert (response.headers["Vary"], response.headers["Cache-Control"]) == ("Accept", "no-store")


@pytest.mark.parametrize("media", ["text/csv", "application/x-ndjson"])
async def test_head_of_an_export__has_no_body(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int, media: str
) -> None:
    await ingested(prediction(at_us=now_us))
    host, port = client.server.host, client.server.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        f"HEAD /metrics/predictions HTTP/1.1\r\nHost: {host}\r\nAccept: {media}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and media.encode() in head
    assert body == b""


async def test_formula_in_a_text__does_not_run_in_a_spreadsheet(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    texts = ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", " =1", "1=1", "a - b", "a=b; c", ""]
    await ingested(*(prediction(at_us=now_us - n, text=text) for n, text in enumerate(texts)))
    exported = {}
    for media in ("text/csv", "application/x-ndjson"):
        exported[media] = await (await client.get("/metrics/predictions", headers={"Accept": media})).text()
    lines = csv.DictReader(io.StringIO(exported["text/csv"], newline=""))
    assert [line["text"] for line in lines] == [*(f"'{text}" for text in texts[:7]), *texts[7:]]
    assert [line["text"] for line in ndjson(exported["application/x-ndjson"])] == texts


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
async def test_formula_within_a_text__does_not_run_where_cells_are_split_at_other_characters(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int, delimiter: str
) -> None:
    formulas = ["=1+1", '=HYPERLINK("http://x")', " +1", '"=1+1', '""-1', "\t@sum", "\r\n=1"]
    texts = [f"fine{mark}{formula}{mark}" for mark in ";\t|\n" for formula in formulas]
    await ingested(*(prediction(at_us=now_us - n, text=text) for n, text in enumerate(texts)))
    exported = await (await client.get("/metrics/predictions", headers={"Accept": "text/csv"})).text()
    _, rows = exported.split("\r\n", 1)
    cells = [cell for row in csv.reader(io.StringIO(rows, newline=""), delimiter=delimiter) for cell in row]
    assert len(cells) > len(texts)
    assert [cell for cell in cells if cell.strip(' "').startswith(("=", "+", "-", "@"))] == []


async def test_csv__has_each_cell_in_quotes(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    await ingested(prediction(at_us=now_us, text="fine"))
    exported = await (await client.get("/metrics/predictions", headers={"Accept": "text/csv"})).text()
    head, row, end = exported.split("\r\n")
    assert end == ""
    assert row.count('","') == head.count(",")
    assert row.startswith('"') and row.endswith('"fine"')


def ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_drift__compares_with_the_chosen_reference(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    day_us = 86_400_000_000
    await ingested(
        *(prediction(at_us=now_us - n, label="P", score=0.9) for n in range(300)),
        *(prediction(at_us=now_us - 2 * 3_600_000_000 - n, label="P", score=0.9) for n in range(300)),
        *(prediction(at_us=now_us - 3 * day_us - n, label="PN"[n % 2], score=0.5) for n in range(300)),
    )
    lately = await (await client.get("/metrics/drift")).json()
    assert [lately[name]["drifted"] for name in ("labels", "confidence", "length")] == [False] * 3
    assert (lately["labels"]["n"], lately["labels"]["reference_n"]) == (300, 300)
    end = as_time(now_us - 2 * day_us).isoformat()
    before = await (await client.get("/metrics/drift", params={"reference": "7d", "reference_end": end})).json()
    assert [before[name]["drifted"] for name in ("labels", "confidence", "length")] == [True, True, False]
    DriftReport.model_validate(before, strict=False)


async def test_stream__tells_aggregates_and_ends_with_the_service(settings: MetricsSettings) -> None:
    server = TestServer(create_service(settings).app)
    async with TestClient(server) as client:
        response = await client.get("/metrics/stream?window=5m")
        assert response.content_type == "text/event-stream"
        assert await response.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
        for _ in range(2):
            name, data = (await response.content.readuntil(b"\n\n")).splitlines()[:2]
            assert name == b"event: aggregate"
            Aggregate.model_validate_json(data.removeprefix(b"data: "))
        async with asyncio.timeout(30):
            await server.app.shutdown()
            assert await response.content.read() in (b"", b"\n")


async def test_stream__is_refused_to_who_has_a_share_open_and_to_nobody_else(settings: MetricsSettings) -> None:
    few = settings.model_copy(update={"metrics_stream_clients": 20})
    async with TestClient(TestServer(create_service(few).app)) as client:

        async def status(address: str) -> int:
            response = await client.get("/metrics/stream", headers={"X-Forwarded-For": address})
            if response.status == 429:
                assert response.headers["Retry-After"] == "2"
                problem = await response.json(content_type="application/problem+json")
                assert "many open streams" in problem["detail"] and problem["violated-policies"] == ["streams"]
            return response.status

        asked = ("203.0.113.9",) * 3 + (
            "2001:db8::1",
            "2001:db8::2:1",
            "2001:db8::3",
            "2001:db8:0:1::1",
            "",
            "nonsense",
        )
        statuses = [await status(address) for address in asked]
        assert statuses == [200, 200, 429, 200, 200, 429, 200, 200, 200]
        assert await status("") == 429  # the peer's share


async def test_alert__fires_and_is_told_to_the_webhook_once_by_either_replica(
    settings: MetricsSettings,
    send: Callable[..., Any],
    prediction: Callable[..., Any],
    now_us: int,
    rows: Callable[..., Any],
) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        await told.put(await request.json())
        return web.Response()

    receiver = web.Application()
    receiver.router.add_post("/", hook)
    async with TestServer(receiver) as webhook:
        url = SecretStr(str(webhook.make_url("/")))
        both = settings.model_copy(update={"metrics_webhook_url": url, "metrics_evaluate_s": 1.0})
        services = [create_service(both) for _ in range(2)]
        async with TestClient(TestServer(services[0].app)) as client, TestServer(services[1].app):
            rule = {"name": "many", "metric": "predictions", "above": 2.0}
            await client.put("/metrics/thresholds", json={"rules": [rule]})
            await send(*(prediction(at_us=now_us) for _ in range(3)))
            async with asyncio.timeout(60):
                assert (await told.get())["alerts"][0]["labels"]["alertname"] == "many"
            [alert] = (await (await client.get("/metrics/alerts")).json())["alerts"]
            assert (alert["state"], alert["value"]) == ("firing", 3.0)
            await client.put("/metrics/thresholds", json={"rules": []}, headers={"If-Match": "*"})
            async with asyncio.timeout(60):
                assert (await told.get())["status"] == "resolved"
                while sum(map(delivered, services)) < 2:
                    await asyncio.sleep(0)
            assert await rows("SELECT FROM notification") == []
            assert sum(map(delivered, services)) == 2
            assert told.empty()


def delivered(service: Service) -> float:
    """Notifications delivered to this replica's receiver."""
    return service.registry.get_sample_value("sluice_metrics_notifications_total", {"outcome": "delivered"}) or 0.0


async def test_slow_reader__has_its_time_for_each_slice_of_an_export() -> None:
    slices: list[bytes] = []

    class Reader(web.StreamResponse):
        async def write(self, data: Any) -> None:
            slices.append(bytes(data))

    sent = b"".join(b"%d" % n for n in range(50_000))
    await _send(Reader(), sent)
    assert b"".join(slices) == sent
    assert {len(part) for part in slices[:-1]} == {SLICE_BYTES}


async def test_aggregate_by_get__is_that_of_post(
    client: Client, ingested: Callable[..., Any], prediction: Callable[..., Any], now_us: int
) -> None:
    await ingested(*(prediction(at_us=now_us, route=route) for route in ("/predict", "/predict", "/other")))
    asked = {"window": "1h", "group_by": ["route", "label"], "filters": {"route": "/predict"}}
    posted = await (await client.post("/metrics/aggregated", json=asked)).json()
    query = {"window": "1h", "group_by": "route,label", "route": "/predict"}
    got = await (await client.get("/metrics/aggregated", params=query)).json()
    assert got["groups"] == posted["groups"] != []
    assert (got["requests"], posted["requests"]) == (2, 2)


@pytest.mark.parametrize("query", [{"window": "2h"}, {"group_by": "colour"}, {"start": "2026-01-01T00:00:00Z"}])
async def test_bad_query_of_an_aggregate__names_the_parameter(client: Client, query: dict[str, str]) -> None:
    response = await client.get("/metrics/aggregated", params=query)
    problem = await response.json()
    assert response.status == 422
    assert {error["location"] for error in problem["errors"]} == {"query"}
