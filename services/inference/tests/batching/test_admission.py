"""Tests of the admission: it learns the line, refuses what would be late, and can't lock itself out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.admission import Admission, LatencyModel, Limits, estimate
from inference.batching.jobs import DeadlineExceeded, Overloaded


def taught(workers: int = 1, max_queue_tokens: int = 10_000, max_wait_s: float = 2.0) -> Admission:
    """An admission that knows: 10 ms a batch and 1 ms a token, 50 tokens a batch (so 1.2 ms a token)."""
    admission = Admission(Limits(max_queue_tokens, max_wait_s))
    admission.workers = workers
    for tokens in (25, 75) * 50:
        admission.model.learn(tokens, 0.010 + 0.001 * tokens)
    return admission


@given(st.floats(0, 0.1), st.floats(1e-6, 0.01), st.lists(st.integers(1, 512), min_size=20, max_size=60, unique=True))
def test_latency_model__recovers_an_exact_line(a: float, b: float, sizes: list[int]) -> None:
    model = LatencyModel()
    for tokens in sizes:
        model.learn(tokens, a + b * tokens)
    assert model.line == pytest.approx((a, b), rel=1e-3, abs=1e-5)


def test_latency_model__never_starts_below_zero() -> None:
    model = LatencyModel()
    for tokens in (10, 100) * 50:
        model.learn(tokens, 1e-5 * tokens**2)
    assert model.line == pytest.approx((0.0, model.seconds_per_token))


def test_latency_model__follows_a_faster_engine() -> None:
    model = LatencyModel()
    for seconds in [0.1] * 50 + [0.01] * 1500:
        model.learn(25, seconds)
    assert model.seconds(25) == pytest.approx(0.01, rel=0.05)


def test_idle_service__admits_any_single_text() -> None:
    admission = taught()
    admission.admit([10_000_000], remaining_s=0.001)
    assert admission.tokens == 10_000_000


def test_late_request__is_refused_with_a_computed_retry_after() -> None:
    admission = taught()
    admission.admit([1000], 10.0)  # 1.2 s of work
    admission.admit([25], 2.1)
    with pytest.raises(Overloaded) as refused:
        admission.admit([25], 2.0)  # two fifths of it are kept for what the prediction misses
    assert refused.value.retry_after_s == pytest.approx(1.230 + 0.035 - 0.6 * 2.0, abs=0.01)
    assert admission.tokens == 1025


def test_retry_after__equals_what_admit_raises() -> None:
    admission = taught()
    assert not admission.near_capacity
    admission.admit([1000], 10.0)
    assert admission.near_capacity
    assert admission.retry_after_s([25], 10.0) is None
    with pytest.raises(Overloaded) as raised:
        admission.admit([25], 1.0)
    assert admission.retry_after_s([25], 1.0) == raised.value.retry_after_s
    assert admission.tokens == 1000


def test_wait_above_the_limit__is_refused() -> None:
    admission = taught(max_wait_s=1.0)
    admission.admit([1000], 10.0)
    with pytest.raises(Overloaded) as refused:
        admission.admit([25], 10.0)
    assert refused.value.retry_after_s == pytest.approx(0.2, abs=0.01)


def test_full_queue__refuses_until_tokens_are_released() -> None:
    admission = taught(max_queue_tokens=1000)
    admission.admit([600], 10.0)
    with pytest.raises(Overloaded):
        admission.admit([401], 10.0)
    admission.release(600)
    admission.admit([401], 10.0)


@pytest.mark.parametrize(("workers", "at_once"), [(0, 1), (1, 1), (2, 2)])  # 0: while an engine is made anew
def test_full_queue__retry_after_counts_all_workers(workers: int, at_once: int) -> None:
    admission = taught(workers, max_queue_tokens=1000)
    admission.admit([600], 10.0)
    with pytest.raises(Overloaded) as refused:
        admission.admit([600], 10.0)
    assert refused.value.retry_after_s == pytest.approx(200 * 0.0012 / at_once, abs=0.01)


def test_list__is_predicted_over_the_available_workers() -> None:
    admission = taught()
    admission.admit([25], 10.0)  # 30 ms
    with pytest.raises(Overloaded):
        admission.admit([25, 25], 0.13)  # 60 ms more; two fifths of the time are kept
    admission.workers = 2
    admission.admit([25, 25], 0.13)


def test_hopeless_list__is_rejected_at_once() -> None:
    admission = taught()
    for tokens, remaining_s in ((0, 1.9), (25, 3.1)):  # 1.92 s of work
        admission.tokens = tokens
        assert admission.retry_after_s([25] * 64, remaining_s) == math.inf
        with pytest.raises(DeadlineExceeded):
            admission.admit([25] * 64, remaining_s)
        assert admission.tokens == tokens


def test_hopeless_text__is_rejected_while_the_service_is_busy() -> None:
    admission = taught()
    admission.admit([25], 10.0)
    with pytest.raises(DeadlineExceeded):
        admission.admit([1000], 1.0)


def test_hopeless_lists_in_a_row__end_with_one_admitted() -> None:
    admission = taught()
    admission.learn(25, 3600.0)
    refused = 0
    while admission.retry_after_s([25] * 2, 10.0) is not None:
        with pytest.raises(DeadlineExceeded):
            admission.admit([25] * 2, 10.0)
        refused += 1
    assert refused == 8
    admission.admit([25] * 2, 10.0)
    admission.release(50)
    admission.learn(25, 0.035)
    assert admission.retry_after_s([25] * 2, 10.0) == math.inf


def test_retry_after__is_bounded_by_the_last_deadline() -> None:
    admission = taught(max_queue_tokens=11_000)
    admission.admit([10], 60.0)
    admission.release(10)
    admission.admit([10_000], 1.5)  # 12 s of work that leaves after 1.5 s
    assert admission.retry_after_s([25], 10.0) == 1.5


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a", 2), ("A wonderful film.", 6), ("好" * 40, 32), ("😀" * 40, 42), ("\ud800", 2), ("a" * 9999, 512)],
)
def test_estimate__counts_bytes_up_to_the_model_limit(text: str, tokens: int) -> None:
    assert estimate(text, 512) == tokens
