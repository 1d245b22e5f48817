"""Sums of rows do not depend on the order in which they are added or merged."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts.aggregates import Filters
from common.contracts.events import Outcome
from metrics.query.accumulator import Accumulator, GroupKey, Row
from metrics.ranges import Range, as_time
from metrics.storage.histogram import BIN_BITS, LATENCY

HOUR = Range(0, 3_600_000_000)
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["ok", "limited", "error", "timeout"])


def histogram(bins: int) -> st.SearchStrategy[dict[int, int]]:
    return st.dictionaries(st.integers(0, bins - 1), st.integers(1, 9))


def row(outcome: Outcome, label: str, latency_us: int, *histograms: dict[int, int]) -> Row:
    n = max(1, sum(histograms[LATENCY].values()))
    numbers = [sum(n << BIN_BITS * bin for bin, n in one.items()) for one in histograms]
    key = GroupKey("m", "/predict", outcome, label)
    return Row(0, key, "model", latency_us, n, latency_us * n, n, n * 10, 0, 0, 0, [*numbers, 0, 0, 0])


rows = st.lists(
    st.builds(
        row, outcomes, st.sampled_from("PN"), st.integers(1, 10**9), histogram(993), histogram(10), histogram(125)
    ),
    max_size=12,
)


def added(some: Sequence[Row]) -> Accumulator:
    total = Accumulator()
    for one in some:
        total.add(one)
    return total


@given(rows, st.integers(1, 5), st.randoms(use_true_random=False))
def test_merging_in_any_order__gives_the_same(some: list[Row], parts: int, rng: random.Random) -> None:
    whole = added(some)
    shuffled = rng.sample(some, len(some))
    sums = [added(shuffled[place::parts]) for place in range(parts)]
    rng.shuffle(sums)
    total = Accumulator()
    for part in sums:
        total.merge(part)
    assert total.summary(HOUR) == whole.summary(HOUR)
    assert (total.scores(), total.lengths()) == (whole.scores(), whole.lengths())


def test_only_answers__count_in_histograms() -> None:
    total = added([row("error", "P", 5, {1: 1}, {3: 1}, {}), row("ok", "P", 5, {1: 2}, {0: 2}, {})])
    assert total.scores() == {0: 2}
    assert (total.requests, total.predictions) == (3, 2)


@pytest.mark.parametrize(
    ("field", "own", "other"),
    [("model", "m", "x"), ("route", "/predict", "/x"), ("outcome", "ok", "error"), ("label", "P", "N")],
)
def test_filter__lets_pass_what_matches_it_and_all_others(field: str, own: Any, other: Any) -> None:
    source = GroupKey("m", "/predict", "ok", "P")
    all_match = Filters(model="m", route="/predict", outcome="ok", label="P")
    for filters in (Filters(), all_match, Filters.model_validate({field: own})):
        assert source.matches(filters)
    for filters in (Filters.model_validate({field: other}), all_match.model_copy(update={field: other})):
        assert not source.matches(filters)


def test_point_of_a_series__counts_each_outcome() -> None:
    outcomes: list[tuple[Outcome, int]] = [("ok", 100), ("limited", 7), ("error", 2), ("timeout", 3)]
    point = added([row(outcome, "P", 1, {0: n}, {}, {}) for outcome, n in outcomes]).point(HOUR.start)
    assert (point.at, point.requests, point.predictions) == (as_time(HOUR.start), 112, 100)
    assert (point.rate_limited, point.errors) == (7, 5)


def test_labels__come_by_how_often_and_then_by_name() -> None:
    total = added([row("ok", label, 1, {0: n}, {}, {}) for label, n in {"N": 1, "P": 2, "A": 1}.items()])
    assert [share.label for share in total.summary(HOUR).labels] == ["P", "A", "N"]
