"""Admission refuses what would be late, and a bad estimate cannot lock it up."""

import math

import pytest

from inference.batching.admission import Admission, estimate
from inference.batching.jobs import DeadlineExceeded, Overloaded


def trained(workers: int = 1, max_tokens: int = 10_000, max_wait_s: float = 2.0) -> Admission:
    """An admission that has learnt 1.2 ms a token."""
    admission = Admission(max_wait_s, max_tokens)
    admission.workers = workers
    admission.learn(50, 0.060)
    return admission


def retry_after_s(admission: Admission, sizes: list[int], remaining_s: float) -> float:
    """Return that of the refusal, which leaves the tokens as they are."""
    before = admission.tokens
    predicted_s = admission.retry_after_s(sizes, remaining_s)
    with pytest.raises(Overloaded) as refused:
        admission.admit(sizes, remaining_s)
    assert (refused.value.retry_after_s, admission.tokens) == (predicted_s, before)
    return refused.value.retry_after_s


def test_cost_of_a_token__follows_a_faster_engine() -> None:
    admission = trained()
    for _ in range(1500):
        admission.learn(25, 0.01)
    assert admission.seconds_per_token == pytest.approx(0.0004, rel=0.05)


def test_idle_service__admits_any_single_text() -> None:
    admission = trained()
    admission.admit([10_000_000], remaining_s=0.001)
    assert admission.tokens == 10_000_000


@pytest.mark.parametrize(
    ("admission", "waiting", "sizes", "remaining_s", "expected_s"),
    [
        (trained(), 1000, [25], 2.0, 1.2 + 0.03 - 0.6 * 2.0),  # two fifths of the time are a margin
        (trained(), 1000, [25, 25], 2.0, 1.2 + 0.06 - 0.6 * 2.0),
        (trained(max_wait_s=1.0), 1000, [25], 10.0, 0.2),
        (trained(0, max_tokens=1000), 600, [600], 10.0, 0.24),  # no worker: an engine is being replaced
        (trained(1, max_tokens=1000), 600, [600], 10.0, 0.24),
        (trained(2, max_tokens=1000), 600, [600], 10.0, 0.12),
    ],
)
def test_refusal__has_a_computed_retry_after(
    admission: Admission, waiting: int, sizes: list[int], remaining_s: float, expected_s: float
) -> None:
    admission.admit([waiting], 10.0)
    assert retry_after_s(admission, sizes, remaining_s) == pytest.approx(expected_s, abs=0.001)
    admission.release(waiting)
    admission.admit(sizes, remaining_s)


def test_list__is_predicted_over_the_available_workers() -> None:
    admission = trained()
    admission.admit([25], 10.0)  # 30 ms
    assert retry_after_s(admission, [25, 25], 0.13) > 0  # 60 ms more
    admission.workers = 2
    admission.admit([25, 25], 0.13)


@pytest.mark.parametrize(
    ("waiting", "sizes", "remaining_s"),
    [(0, [25] * 64, 1.9), (25, [25] * 64, 3.1), (25, [1000], 1.0)],
)
def test_hopeless_request__is_rejected_at_once(waiting: int, sizes: list[int], remaining_s: float) -> None:
    admission = trained()
    admission.tokens = waiting
    assert admission.retry_after_s(sizes, remaining_s) == math.inf
    with pytest.raises(DeadlineExceeded):
        admission.admit(sizes, remaining_s)
    assert admission.tokens == waiting


def test_hopeless_lists_in_a_row__end_with_one_admitted() -> None:
    admission = trained()
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
    admission = trained(max_tokens=11_000)
    admission.admit([10], 60.0)
    admission.release(10)
    admission.admit([10_000], 1.5)  # 12 s of work that leaves after 1.5 s
    assert retry_after_s(admission, [25], 10.0) == 1.5


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a", 2), ("A wonderful film.", 6), ("好" * 40, 32), ("😀" * 40, 42), ("\ud800", 2), ("a" * 9999, 512)],
)
def test_estimate__counts_bytes_up_to_the_model_limit(text: str, tokens: int) -> None:
    assert estimate(text, 512) == tokens
