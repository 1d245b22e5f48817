"""Sums of rows: the same whatever the order in which they are added or merged."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from common.contracts import Outcome
from metrics.histogram import SCORE, STRIDE
from metrics.tally import Row, Source, Tally
from metrics.windows import Range

HOUR = Range(0, 3_600_000_000)
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["ok", "limited", "error", "timeout"])
histograms = st.dictionaries(st.integers(0, 900) | st.integers(1024, 1033) | st.integers(3072, 3120), st.integers(1, 9))


def row(outcome: Outcome, label: str, latency_us: int, histogram: dict[int, int]) -> Row:
    bins = sorted(histogram)
    n = max(1, sum(n for bin, n in histogram.items() if bin < STRIDE))
    counts = [histogram[bin] for bin in bins]
    return Row(0, Source("m", "/predict", outcome, label), latency_us, n, latency_us * n, n, n * 10, bins, counts)


rows = st.lists(st.builds(row, outcomes, st.sampled_from("PN"), st.integers(1, 10**9), histograms), max_size=12)


def added(some: Sequence[Row]) -> Tally:
    tally = Tally()
    for one in some:
        tally.add(one)
    return tally


@given(rows, st.integers(1, 5), st.randoms(use_true_random=False))
def test_merging_in_any_order__gives_the_same(some: list[Row], parts: int, rng: random.Random) -> None:
    whole = added(some)
    shuffled = rng.sample(some, len(some))
    tallies = [added(shuffled[place::parts]) for place in range(parts)]
    rng.shuffle(tallies)
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    for which in range(4):
        assert total.histogram(which) == whole.histogram(which)
    answered = sum(whole.histogram(0).values())
    if answered == whole.predictions:
        assert total.summary(HOUR) == whole.summary(HOUR)


@given(rows)
def test_adding__leaves_the_rows_as_they_were(some: list[Row]) -> None:
    before = [(list(one.bins), list(one.counts)) for one in some]
    tally = added(some)
    tally.merge(added(some))
    assert [(list(one.bins), list(one.counts)) for one in some] == before


def test_only_answers__count_in_histograms() -> None:
    tally = added([row("error", "P", 5, {1: 1, SCORE * STRIDE + 3: 1}), row("ok", "P", 5, {1: 2, SCORE * STRIDE: 2})])
    assert tally.histogram(SCORE) == {0: 2}
    assert (tally.requests, tally.predictions) == (3, 2)
