"""Every event is stored once, and rollups equal the sums of the stored events."""

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.contracts.events import CounterEvent
from metrics.errors import RowRefused
from metrics.ingest.writer import EventWriter, WriteResult
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000


@pytest.fixture
def writer(database: Database) -> EventWriter:
    return EventWriter(database)


async def test_event_written_again__counts_once(
    writer: EventWriter, rows: Callable[..., Any], prediction: Callable[..., Any], counter: Callable[..., Any]
) -> None:
    events = [prediction(), prediction(outcome="error", label=None, score=None, margin=None), counter(n=5)]
    assert await writer.write([*events, events[0]]) == WriteResult(2, 1)
    assert await writer.write(events) == WriteResult(0, 0)
    assert await rows("SELECT outcome, n FROM rollup WHERE width_s = 86400 ORDER BY 1") == [
        ("error", 1),
        ("limited", 5),
        ("ok", 1),
    ]


async def test_counter_with_its_most_limited_clients__counts_like_one_without(
    writer: EventWriter, rows: Callable[..., Any], counter: Callable[..., Any]
) -> None:
    events = [counter(n=5), counter(n=7, clients=[("a" * 32, 4), ("b" * 32, 3)])]
    assert (await writer.write(events)).counters == 2
    assert await rows("SELECT outcome, n FROM rollup WHERE width_s = 86400") == [("limited", 12)]


async def test_every_field__is_kept(
    writer: EventWriter, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    event = prediction(
        trace_id="f" * 32, cached=True, truncated=True, queue_us=1, compute_us=2, tokens=3, client="c", text="Grüße"
    )
    await writer.write([event])
    [row] = await rows(
        "SELECT event_id::text, extract(epoch FROM at)::float8, route, outcome, request_id, trace_id, model, revision, "
        "label, score, margin, cached, truncated, latency_us, queue_us, compute_us, tokens, characters, client, text "
        "FROM prediction"
    )
    expected = event.model_dump(exclude={"kind"})
    expected["at_us"] /= 1_000_000
    names = (
        "id at_us route outcome request_id trace_id model revision label score margin cached truncated "
        "latency_us queue_us compute_us tokens characters client text"
    ).split()
    assert row == tuple(expected[name] for name in names)


async def test_nul_in_a_users_text__does_not_keep_the_event_from_counting(
    writer: EventWriter, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    await writer.write([prediction(text="a\x00b")])
    assert await rows("SELECT text FROM prediction") == [("a\ufffdb",)]


async def test_row_that_postgres_refuses__fails_the_batch_whole(
    writer: EventWriter, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    with pytest.raises(RowRefused):
        await writer.write([prediction(), prediction(request_id="\x00")])
    assert await rows("SELECT * FROM rollup") == []


async def test_writers_of_the_same_events_at_once__neither_deadlock_nor_count_twice(
    writer: EventWriter, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    events = [prediction(at_us=AT_US + n * 7_000_000, model=f"m{n % 3}", label=f"l{n % 5}") for n in range(400)]
    batches = [events[::step] for step in (1, -1, 1, -1, 1, -1)]
    async with asyncio.TaskGroup() as group:
        written = [group.create_task(writer.write(batch)) for batch in batches]
    assert sum(task.result().predictions for task in written) == 400
    assert await rows("SELECT width_s, sum(n)::int FROM rollup GROUP BY 1 ORDER BY 1") == [
        (10, 400),
        (60, 400),
        (3_600, 400),
        (86_400, 400),
    ]


def in_bins(bins: Iterable[int]) -> int:
    return sum(10 ** (12 * bin) for bin in bins)


def recomputed(events: list[Any]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The rollups, by the definition of each column."""
    groups = defaultdict(list)
    for event in {event.id: event for event in events}.values():
        model, label = ("", "") if isinstance(event, CounterEvent) else (event.model, event.label or "")
        for width_s in (10, 60, 3_600, 86_400):
            at = datetime.fromtimestamp(event.at_us // 1_000_000 // width_s * width_s, UTC)
            groups[width_s, at, model, event.route, event.outcome, label, origin(event)].append(event)
    return {key: summed(group) for key, group in groups.items()}


def origin(event: Any) -> str:
    if event.outcome != "ok":
        return ""
    return "cache" if event.cached else "model"


def on_grid(values: Iterable[int], bins_per_octave: int = 32) -> int:
    return in_bins(math.ceil(math.log(max(value, 1)) * (bins_per_octave / math.log(2))) for value in values)


def summed(group: list[Any]) -> tuple[Any, ...]:
    counters = [event for event in group if isinstance(event, CounterEvent)]
    texts = [event for event in group if not isinstance(event, CounterEvent)]
    scores = [event.score for event in texts if event.score is not None]
    computed = [event for event in texts if origin(event) == "model"]
    return (
        sum(event.n for event in counters) + len(texts),
        max((event.latency_us for event in texts), default=0),
        sum(event.latency_us for event in texts),
        len(scores),
        sum(round(score * 1_000_000) for score in scores),
        sum(event.characters for event in texts),
        sum(event.queue_us for event in texts),
        sum(event.compute_us for event in texts),
        sum(event.tokens for event in texts),
        on_grid(event.latency_us for event in texts),
        in_bins(min(int(score * 10), 9) for score in scores),
        on_grid((event.characters for event in texts), 4),
        on_grid(event.queue_us for event in computed),
        on_grid(event.compute_us for event in computed),
        on_grid(event.tokens for event in computed),
    )


shares = st.floats(0, 1, width=32)
predictions = st.fixed_dictionaries(
    {
        "at_us": st.integers(AT_US, AT_US + 30 * 3_600 * 1_000_000),
        "model": st.sampled_from(["m1", "m2"]),
        "route": st.sampled_from(["/predict", "/batch"]),
        "outcome": st.sampled_from(["ok", "error", "timeout"]),
        "label": st.sampled_from(["POSITIVE", "NEGATIVE", None]),
        "score": shares | st.none(),
        "margin": shares | st.none(),
        "latency_us": st.integers(0, (1 << 31) - 1) | st.integers(0, 31).map(lambda n: min(1 << n, (1 << 31) - 1)),
        "characters": st.integers(0, 10_000),
        "cached": st.booleans(),
        "queue_us": st.integers(0, (1 << 31) - 1),
        "compute_us": st.integers(0, 100_000),
        "tokens": st.integers(0, 512),
    }
)
counters = st.fixed_dictionaries(
    {
        "at_us": st.integers(AT_US, AT_US + 30 * 3_600 * 1_000_000),
        "outcome": st.sampled_from(["limited", "invalid", "unavailable"]),
        "n": st.integers(1, 1 << 31),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(predictions, max_size=40), st.lists(counters, max_size=10), st.randoms(use_true_random=False))
async def test_rollups__are_what_the_raw_events_add_up_to(
    writer: EventWriter,
    rows: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    some_predictions: list[dict[str, Any]],
    some_counters: list[dict[str, Any]],
    rng: random.Random,
) -> None:
    await rows("TRUNCATE prediction, counter_event, rollup")
    events = [prediction(**fields) for fields in some_predictions] + [counter(**fields) for fields in some_counters]
    sent = events + rng.sample(events, len(events) // 3)
    rng.shuffle(sent)
    for start in range(0, len(sent), 9):
        await writer.write(sent[start : start + 9])
    stored = {
        row[:7]: row[7:]
        for row in await rows(
            "SELECT width_s, at, model, route, outcome, label, origin, n, latency_max_us, latency_sum_us, scored, "
            "score_sum_ppm, characters_sum, queue_sum_us, compute_sum_us, tokens_sum, latency_bins, score_bins, "
            "character_bins, queue_bins, compute_bins, token_bins FROM rollup"
        )
    }
    assert stored == recomputed(events)
