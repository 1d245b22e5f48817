"""Pages of single predictions: every row once, newest first, however the rows and filters fall."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.errors import InvalidField
from metrics.ingest.writer import EventWriter
from metrics.query.predictions import PAGE_TEXT_BYTES, Order, Predictions, RowFilters
from metrics.ranges import Range
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000
HOUR = Range(AT_US, AT_US + 3_600_000_000)


@pytest.fixture
def predictions(database: Database) -> Predictions:
    return Predictions(database)


async def pages(predictions: Predictions, asked: Range, filters: RowFilters, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await predictions.page(asked, filters, limit=limit, cursor=cursor)
        ids += [one.id for one in page.predictions]
        if (cursor := page.cursor) is None:
            return ids


moments = st.integers(AT_US - 1_000_000, HOUR.end + 1_000_000) | st.integers(AT_US, AT_US + 3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(moments, st.sampled_from("abc"), st.sampled_from(["P", "N", None])), max_size=40),
    st.sampled_from([None, "a"]),
    st.sampled_from([None, "P", ""]),
    st.integers(1, 12),
)
async def test_pages__hold_every_matching_row_once_and_newest_first(
    predictions: Predictions,
    database: Database,
    rows: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    stored: list[tuple[int, str, str | None]],
    model: str | None,
    label: str | None,
    limit: int,
) -> None:
    await rows("TRUNCATE prediction, counter_event, rollup")
    events = [prediction(at_us=at_us, model=name, label=mark) for at_us, name, mark in stored]
    await EventWriter(database).write([*events, *(counter(at_us=AT_US + n * 10**8, n=5) for n in range(30))])
    expected = [
        one.id
        for one in sorted(events, key=lambda one: (one.at_us, one.id), reverse=True)
        if HOUR.start <= one.at_us < HOUR.end
        and model in (None, one.model)
        and (label is None or (one.label or "") == label)
    ]
    assert await pages(predictions, HOUR, RowFilters(model=model, label=label), limit) == expected


async def test_page_of_long_texts__is_shorter(
    predictions: Predictions, database: Database, prediction: Callable[..., Any]
) -> None:
    n = 3 * PAGE_TEXT_BYTES // 40_000
    events = [prediction(at_us=AT_US + place, text="\U0001f600" * 10_000) for place in range(n)]
    await EventWriter(database).write(events)
    page = await predictions.page(HOUR, RowFilters(), limit=n)
    assert [one.id for one in page.predictions] == [event.id for event in events[::-1]][: PAGE_TEXT_BYTES // 40_000 + 1]
    assert await pages(predictions, HOUR, RowFilters(), n) == [event.id for event in events[::-1]]


async def test_row__has_every_field(
    predictions: Predictions, database: Database, prediction: Callable[..., Any]
) -> None:
    event = prediction(trace_id="f" * 32, cached=True, queue_us=1, compute_us=2, tokens=3, client="c", text="Grüße")
    await EventWriter(database).write([event])
    [row] = (await predictions.page(HOUR, RowFilters(), limit=5)).predictions
    assert row.model_dump(exclude={"at"}) == event.model_dump(exclude={"at_us", "kind"})
    assert row.at.timestamp() == AT_US / 1_000_000


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "1-2", f"{AT_US - 1}-{'0' * 32}", f"{HOUR.end}-{'0' * 32}", f"{AT_US}-{'g' * 32}"],
)
async def test_cursor_of_something_else__names_the_field(predictions: Predictions, cursor: str) -> None:
    with pytest.raises(InvalidField) as caught:
        await predictions.page(HOUR, RowFilters(), limit=5, cursor=cursor)
    assert caught.value.field == "cursor"


async def test_scan__filters_single_rows_and_puts_the_least_confident_first(
    predictions: Predictions, database: Database, prediction: Callable[..., Any]
) -> None:
    places = [(0.9, "a"), (0.5, "b"), (0.7, "a"), (None, "a"), (0.6, "b")]
    events = [prediction(at_us=AT_US + n, score=score, client=client) for n, (score, client) in enumerate(places)]
    await EventWriter(database).write(events)
    ids = [event.id for event in events]

    async def found(order: Order = "time", limit: int = 9, **filters: Any) -> list[int]:
        page = await predictions.page(HOUR, RowFilters(**filters), limit=limit, order=order)
        assert order == "time" or page.cursor is None
        return [ids.index(one.id) for one in page.predictions]

    assert await found("score") == [1, 4, 2, 0, 3]
    assert await found("score", 2, client="a") == [2, 0]
    assert await found(min_score=0.6, max_score=0.8) == [4, 2]
    assert await found(client="b") == [4, 1]
    assert await found(request_id=UUID(int=1)) == []
    assert await pages(predictions, HOUR, RowFilters(client="a"), 2) == [ids[3], ids[2], ids[0]]
