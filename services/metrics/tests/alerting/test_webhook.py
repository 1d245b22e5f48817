"""Notifications over real HTTP: one per change with any number of replicas, none lost while the receiver is down."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from common.contracts.thresholds import ThresholdRule
from common.http.client import create_session
from metrics.alerting import outbox
from metrics.alerting.outbox import Outbox, PendingNotification
from metrics.alerting.state import AlertInstance, fingerprint
from metrics.alerting.webhook import KEEP_S, Notifier
from metrics.metrics import AlertMetrics
from metrics.ranges import SECOND
from metrics.storage.database import Database

RULE = ThresholdRule(name="slow", metric="latency_ms.p95", above=100.0, severity="critical")


class Receiver:
    """A webhook that responds with `status` after `takes_s` of the clock and keeps the notifications."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.status = 200
        self.takes_s = 0.0
        self.taken: list[Any] = []
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.clock.now_s += self.takes_s
        self.headers = request.headers
        self.body = await request.read()
        if self.status == 200:
            self.taken.append(await request.json())
        return web.Response(status=self.status)


@pytest.fixture
def receiver(clock: Any) -> Receiver:
    return Receiver(clock)


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/hook", receiver.answer)
    app.router.add_post("/api/v2/alerts", receiver.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/hook"))


@pytest.fixture
async def notifier(database: Database, clock: Any, url: str) -> AsyncIterator[Callable[..., Notifier]]:
    """Returns a function that creates a replica's notifier, by default for `receiver`."""
    async with create_session() as session:
        yield lambda to=url, outbox=None: Notifier(
            outbox or Outbox(database, lease_s=10),
            session,
            AlertMetrics(CollectorRegistry()),
            url=to,
            token="secret-token",
            signing_key="signing-key",
            timeout_s=20,
            now=clock,
        )


@pytest.fixture
def queued(database: Database, clock: Any) -> Callable[..., Any]:
    """Returns a function that queues notifications of these states."""

    async def put(*states: str, rule: ThresholdRule = RULE) -> None:
        now_us = int(clock() * SECOND)
        for state in states:
            resolved_us = now_us if state == "resolved" else None
            episode = AlertInstance(rule, state, 123.0, now_us, now_us, None, resolved_us)  # type: ignore[arg-type]  # a word
            async with database.transaction() as connection:
                await outbox.put(connection, episode, now_us)

    return put


async def test_notification__is_authorized_and_signed(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any
) -> None:
    await queued("firing")
    assert await notifier().send_due() == 1
    assert receiver.headers["Authorization"] == "Bearer secret-token"
    signed = f"{int(clock())}.".encode() + receiver.body
    digest = hmac.new(b"signing-key", signed, hashlib.sha256).hexdigest()
    assert receiver.headers["X-Sluice-Signature"] == f"t={int(clock())},v1={digest}"


async def test_notification__has_the_shape_of_alertmanager(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver
) -> None:
    await queued("firing", "resolved")
    assert await notifier().send_due() == 2
    first, second = receiver.taken
    assert (first["version"], first["status"], first["alerts"][0]["status"]) == ("4", "firing", "firing")
    assert (second["status"], second["alerts"][0]["fingerprint"]) == ("resolved", fingerprint(RULE))
    assert first["alerts"][0]["labels"] == {
        "alertname": "slow", "metric": "latency_ms.p95", "service": "sluice", "severity": "critical", "window": "5m",
    }  # fmt: skip
    assert first["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert first["alerts"][0]["startsAt"] == second["alerts"][0]["startsAt"]
    assert second["alerts"][0]["endsAt"].endswith("Z")


async def test_alertmanager__gets_the_body_of_its_own_api(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, url: str
) -> None:
    await queued("firing", "resolved")
    assert await notifier(url.replace("/hook", "/api/v2/alerts")).send_due() == 2
    [firing], [resolved] = receiver.taken
    assert firing.keys() == {"labels", "annotations", "startsAt"}
    assert firing["labels"] == resolved["labels"] and firing["labels"]["alertname"] == "slow"
    assert resolved["endsAt"] >= resolved["startsAt"] == firing["startsAt"]


async def test_replicas__send_each_notification_once(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver
) -> None:
    await queued("firing", "resolved")
    await queued("firing", rule=RULE.model_copy(update={"name": "other"}))
    while len(receiver.taken) < 3:
        await asyncio.gather(*(notifier().send_due() for _ in range(3)))
    assert await notifier().send_due() == 0
    assert len(receiver.taken) == 3


async def test_notification_that_another_replica_is_just_taking__is_passed_over(
    database: Database, queued: Callable[..., Any], clock: Any
) -> None:
    await queued("firing")
    await queued("firing", rule=RULE.model_copy(update={"name": "other"}))
    now_us = int(clock() * SECOND)
    async with asyncio.timeout(60), database.transaction() as another:
        taken = await another.fetchval("SELECT id FROM notification ORDER BY id LIMIT 1 FOR UPDATE")
        waiting = await Outbox(database, lease_s=10).take(now_us, now_us=now_us)
        assert waiting is not None
        assert waiting.id == taken + 1
        assert await Outbox(database, lease_s=10).take(now_us, now_us=now_us) is None


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_receiver_that_is_down_for_a_minute__gets_it_once_it_is_back(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any, status: int
) -> None:
    await queued("firing", "resolved")
    receiver.status = status
    for _ in range(60):
        assert await notifier().send_due() == 0
        clock.now_s += 1
    assert 3 < receiver.asked < 10
    receiver.status = 200
    clock.now_s += 60
    assert await notifier().send_due() == 2
    assert [body["status"] for body in receiver.taken] == ["firing", "resolved"]


async def test_receiver_that_is_not_there__is_tried_again(
    notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any, free_port: Any
) -> None:
    await queued("firing")
    assert await notifier(f"http://127.0.0.1:{free_port()}/").send_due() == 0
    clock.now_s += 2
    assert await notifier().send_due() == 1


async def test_notification_of_who_died_while_sending__is_sent_after_the_lease(
    database: Database, notifier: Callable[..., Notifier], queued: Callable[..., Any], clock: Any
) -> None:
    await queued("firing")
    now_us = int(clock() * SECOND)
    assert await Outbox(database, lease_s=10).take(now_us, now_us=now_us)
    assert await notifier().send_due() == 0
    clock.now_s += 11
    assert await notifier().send_due() == 1


async def test_replica_that_stood_still__does_not_send_what_another_has_sent_since(
    database: Database, notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any
) -> None:
    class StandsStill(Outbox):
        async def take(self, due_us: int, *, now_us: int) -> PendingNotification | None:
            waiting = await super().take(due_us, now_us=now_us)
            clock.now_s += 11
            await notifier().send_due()
            return waiting

    await queued("firing", "resolved")
    await notifier(outbox=StandsStill(database, lease_s=10)).send_due()
    assert [body["status"] for body in receiver.taken] == ["firing", "resolved"]


async def test_notification_that_nobody_takes__is_dropped_after_a_day(
    database: Database, notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any
) -> None:
    await queued("firing")
    clock.now_s += KEEP_S + 1
    assert await notifier().send_due() == 0
    assert receiver.asked == await Outbox(database, lease_s=10).size() == 0


async def test_receiver_that_is_down_for_most_of_a_day__is_still_asked_once_a_minute(
    database: Database, notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any
) -> None:
    await queued("firing")
    receiver.status = 500
    async with database.transaction() as connection:
        await connection.execute("UPDATE notification SET attempts = 1400")
    assert await notifier().send_due() == 0
    clock.now_s += 59
    assert await notifier().send_due() == 0
    assert receiver.asked == 1
    clock.now_s += 2
    receiver.status = 200
    assert await notifier().send_due() == 1


async def test_receiver_that_hangs__is_asked_once_a_round_for_each_of_many(
    database: Database, notifier: Callable[..., Notifier], queued: Callable[..., Any], receiver: Receiver, clock: Any
) -> None:
    for n in range(15):
        await queued("firing", rule=RULE.model_copy(update={"name": f"r{n}"}))
    receiver.status, receiver.takes_s = 500, 5.0  # the first is due again before the last was tried
    async with asyncio.timeout(30):
        assert await notifier().send_due() == 0
        assert receiver.asked == 15
        clock.now_s += KEEP_S
        assert await notifier().send_due() == 0
    assert (receiver.asked, await Outbox(database, lease_s=10).size()) == (15, 0)
