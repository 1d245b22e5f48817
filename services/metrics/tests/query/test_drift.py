"""Drift is distinguished from chance, and small drift from large."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.aggregates import Drift
from metrics.query.accumulator import Accumulator, GroupKey, Row
from metrics.query.drift import drifts
from metrics.storage.histogram import BIN_BITS


def tally(labels: str, scores: list[int] | None = None, lengths: list[int] | None = None) -> Accumulator:
    """Count one answered prediction per letter. `scores` are tenths, `lengths` are bins."""
    total = Accumulator()
    for place, label in enumerate(labels):
        score, length = (scores or [7] * len(labels))[place], (lengths or [20] * len(labels))[place]
        source = GroupKey("m", "/predict", "ok", label)
        total.add(
            Row(0, source, "model", 1, 1, 1, 1, 1, 0, 0, 0, [1, 1 << BIN_BITS * score, 1 << BIN_BITS * length, 0, 0, 0])
        )
    return total


def weighted(**labels: int) -> Accumulator:
    """Return a sum with these numbers of answered predictions per label."""
    total = Accumulator()
    for label, n in labels.items():
        total.add(Row(0, GroupKey("m", "/predict", "ok", label), "", 1, n, n, n, n, 0, 0, 0, [n, 0, 0, 0, 0, 0]))
    return total


def mix(rng: random.Random, share: float, n: int) -> str:
    return "".join("P" if rng.random() < share else "N" for _ in range(n))


def test_same_distribution__has_not_drifted() -> None:
    found = drifts(tally("PPN" * 100), tally("PPN" * 1_000))
    for drift in found:
        assert (drift.drifted, drift.value) == (False, 0)
        assert drift.psi == pytest.approx(0, abs=1e-3)


def test_nothing_to_compare__is_unknown() -> None:
    for now, before in ((Accumulator(), tally("P")), (tally("P"), Accumulator())):
        assert drifts(now, before).labels == Drift(n=now.predictions, reference_n=before.predictions)


def test_distributions_apart__have_drifted_as_far_as_one_can() -> None:
    found = drifts(tally("P" * 500, [9] * 500, [40] * 500), tally("N" * 500, [1] * 500, [8] * 500))
    assert [drift.drifted for drift in found] == [True] * 3


@pytest.mark.parametrize(("n", "m", "is_known"), [(99, 500, False), (500, 99, False), (100, 100, True)])
def test_fewer_than_a_hundred_samples__are_not_compared(n: int, m: int, is_known: bool) -> None:
    found = drifts(tally("P" * n), tally("N" * m)).labels
    assert (found.drifted is True) is (found.value is not None) is is_known


def test_certain_but_small_move__is_no_drift() -> None:
    found = drifts(weighted(P=52_000, N=48_000), weighted(P=50_000, N=50_000)).labels
    assert found.value is not None and found.value > 0
    assert found.drifted is False


def test_label_that_is_new__is_drift() -> None:
    assert drifts(tally("PN" * 100 + "X" * 100), tally("PN" * 500)).labels.drifted


@settings(derandomize=True)  # by chance, some of many samples look like drift
@given(st.integers(0, 2**32), st.integers(100, 2_000), st.integers(100, 2_000), st.floats(0.05, 0.95))
def test_chance_alone__is_not_called_drift(seed: int, n: int, m: int, share: float) -> None:
    rng = random.Random(seed)
    found = drifts(weighted(**Counter(mix(rng, share, n))), weighted(**Counter(mix(rng, share, m)))).labels
    assert found.value is not None and found.value < 0.1
