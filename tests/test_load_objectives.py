"""The objectives of `make load` find planted faults and accept correct results."""

from collections import Counter

import pytest
from objectives import breaches_in_admissions, breaches_in_answers, merged, not_stored_once, wrongly_refused
from users.answers import QUOTA_EXCEEDED, Answer, is_promised_refusal

WINDOW_S, LIMIT = 60.0, 3
SECOND = 1_000_000


def answer(sent_s: float, status: int = 200, units: int = 1, took_s: float = 0.1, address: str = "a") -> Answer:
    return Answer("Predictor", "predict", address, units, sent_s, sent_s + took_s, status, f"id-{sent_s}")


@pytest.mark.parametrize(
    ("answers", "breaches"),
    [
        ([answer(0), answer(1), answer(59)], 0),
        ([answer(0), answer(1), answer(58), answer(59)], 1),
        ([answer(0), answer(1), answer(59), answer(61)], 0),
        ([answer(0), answer(1), answer(2), answer(59.5, took_s=0.6)], 0),  # could have been admitted in the next window
        ([answer(0), answer(1, units=3)], 1),
        ([answer(0), answer(1), answer(2, status=429), answer(3)], 0),
        ([answer(0), answer(1), answer(2, address="b"), answer(3, address="b")], 0),
    ],
)
def test_breach_in_the_generators_log__is_reported_only_if_certain(answers: list[Answer], breaches: int) -> None:
    assert len(breaches_in_answers(answers, LIMIT, WINDOW_S)) == breaches


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([answer(0), answer(1), answer(2), answer(3, status=429)], 0),
        ([answer(0), answer(1), answer(3, status=429)], 1),
        ([answer(0), answer(1), answer(3, status=429, units=2)], 0),
        ([answer(0), answer(1), answer(2, status=0), answer(3, status=429)], 0),  # may have been charged
        ([answer(0), answer(1), answer(2), answer(63, status=429)], 1),
    ],
)
def test_refusal_below_the_limit__is_found(answers: list[Answer], wrong: int) -> None:
    assert len(wrongly_refused(answers, LIMIT, WINDOW_S)) == wrong


@pytest.mark.parametrize(
    ("seconds", "breaches"),
    [((0, 1, 59, 60), 0), ((0, 1, 2, 59), 1), ((0, 59, 59, 59, 60), 1), ((0, 59, 59, 119), 0)],
)
def test_breach_in_the_databases_log__is_any_window_over_the_limit(seconds: tuple[int, ...], breaches: int) -> None:
    admissions = {b"key": Counter(second * SECOND for second in seconds)}
    assert len(breaches_in_admissions(admissions, LIMIT, 60 * SECOND)) == breaches


def test_overlapping_samples__count_each_admission_once() -> None:
    seen: dict[bytes, Counter[int]] = {}
    merged(seen, b"key", [1, 1, 2])
    merged(seen, b"key", [1, 1, 2, 3])
    merged(seen, b"key", [3, 4])
    assert seen[b"key"] == {1: 2, 2: 1, 3: 1, 4: 1}


def test_answers_lost_or_stored_twice__are_found() -> None:
    answers = [answer(0), answer(1, units=2), answer(2), answer(3, status=429)]
    assert not_stored_once(answers, {"id-0": 1, "id-1": 2, "id-2": 1}) == []
    assert not_stored_once(answers, {"id-0": 2, "id-1": 1}) == ["id-0", "id-1", "id-2"]


@pytest.mark.parametrize(
    ("content_type", "retry_after", "body", "is_promised"),
    [
        ("application/problem+json", "7", f'{{"type": "{QUOTA_EXCEEDED}", "status": 429}}', True),
        ("application/problem+json", "0", f'{{"type": "{QUOTA_EXCEEDED}", "status": 429}}', False),
        ("application/problem+json", "", f'{{"type": "{QUOTA_EXCEEDED}", "status": 429}}', False),
        ("application/json", "7", f'{{"type": "{QUOTA_EXCEEDED}", "status": 429}}', False),
        ("application/problem+json", "7", '{"type": "about:blank", "status": 429}', False),
        ("text/html", "7", "<h1>Too many</h1>", False),
    ],
)
def test_refusal__is_expected_only_as_a_problem_document(
    content_type: str, retry_after: str, body: str, is_promised: bool
) -> None:
    headers = {"Content-Type": content_type, "Retry-After": retry_after}
    assert is_promised_refusal(headers, body.encode()) is is_promised
