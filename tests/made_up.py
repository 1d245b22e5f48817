"""Generated traffic: events as the edge and inference send them, written to the stream."""

import math
import random
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

from redis import Redis
from system import System

from common.contracts.events import EVENT_FIELD, STREAM, CounterEvent, Outcome, PredictionEvent

MINUTE_S: Final = 60
BUSIER: Final = 8  # times
MODEL: Final = "sluice-sentiment-minilm"
Event = PredictionEvent | CounterEvent


def prediction(
    at_s: float,
    latency_ms: float = 8.0,
    *,
    label: str = "POSITIVE",
    score: float = 0.9,
    outcome: Outcome = "ok",
    cached: bool = False,
) -> PredictionEvent:
    """One text, scored at Unix time `at_s`."""
    scored = outcome == "ok"
    computed_us = int(latency_ms * 1000) if scored and not cached else 0
    return PredictionEvent(
        id=str(uuid.uuid4()),
        at_us=int(at_s * 1_000_000),
        route="/predict",
        outcome=outcome,
        request_id="made-up",
        model=MODEL,
        revision="1",
        label=label if scored else None,
        score=score if scored else None,
        margin=abs(2 * score - 1) if scored else None,
        cached=cached,
        latency_us=int(latency_ms * 1000),
        queue_us=computed_us // 5,
        compute_us=computed_us // 2,
        tokens=12 if computed_us else 0,
        characters=40,
    )


def limited(at_s: float, n: int) -> CounterEvent:
    """Return a counter of `n` requests that the edge refused within a second."""
    return CounterEvent(
        id=str(uuid.uuid4()), at_us=int(at_s * 1_000_000), route="/predict", outcome="limited", policy="predict", n=n
    )


def an_ordinary_day(now_s: float) -> Iterator[Event]:
    """Yield a day of events: slower when busier, with a few errors and refusals, and always the same.

    Each minute of the last two hours has enough events for distinct percentiles.
    """
    chance = random.Random(7)
    for minute in range(26 * 60):
        start_s = now_s - (minute + 1) * MINUTE_S
        load = 1 + 0.6 * math.sin(start_s / 4000) + 0.3 * math.sin(start_s / 700)
        crowd = BUSIER if minute < 120 else 1
        for _ in range(crowd * chance.randint(int(8 * load), int(14 * load) + 4)):
            at_s = start_s + chance.random() * MINUTE_S
            if chance.random() < 0.004:
                yield prediction(at_s, 1000, outcome=chance.choice(("timeout", "unavailable")))
                continue
            positive = chance.random() < 0.64
            cached = chance.random() < 0.2
            score = min(0.999, max(0.5, chance.betavariate(7, 1.3)))
            yield prediction(
                at_s,
                0.3 if cached else chance.lognormvariate(2.0 + 0.25 * load, 0.45),
                label="POSITIVE" if positive else "NEGATIVE",
                score=score,
                cached=cached,
            )
        if chance.random() < 0.12 * load:
            yield limited(start_s + chance.random() * MINUTE_S, crowd * chance.randint(1, 9))


def send(system: System, events: Iterable[Event]) -> int:
    """Write the events to the system's stream; returns how many."""
    sent = 0
    with redis_of(system) as redis, redis.pipeline(transaction=False) as pipeline:
        for event in events:
            pipeline.xadd(STREAM, {EVENT_FIELD: event.model_dump_json(exclude_none=True)})
            sent += 1
            if sent % 1000 == 0:
                pipeline.execute()
        pipeline.execute()
    return sent


def redis_of(system: System) -> Redis:
    """Return a client of the system's Redis."""
    environment = system.service("metrics").environ()
    return Redis(
        host=environment["REDIS_HOST"],
        port=int(environment["REDIS_PORT"]),
        db=int(environment.get("REDIS_DB", "0")),
        password=environment.get("REDIS_PASSWORD"),
    )
