import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_limiter.ratelimit.limiter import InMemorySlidingLog
from edge_limiter.ratelimit.policy import MAX_LIMIT

LIMIT, WINDOW_S = 7, 10.0


@given(st.lists(st.tuples(st.floats(0, 6), st.integers(1, 4)), max_size=60))
def test_any_sequence__never_exceeds_the_limit_and_never_refuses_what_fits(steps: list[tuple[float, int]]) -> None:
    admitted: list[tuple[float, int]] = []
    log, now = InMemorySlidingLog(100), 0.0
    for wait_s, cost in steps:
        now += wait_s
        charged = sum(units for at, units in admitted if at > now - WINDOW_S)
        decision = log.decide(b"k", cost, LIMIT, WINDOW_S, now)
        assert decision.allowed == (charged + cost <= LIMIT)
        if decision.allowed:
            admitted.append((now, cost))
        assert decision.remaining == LIMIT - charged - (cost if decision.allowed else 0)


def test_refused__is_allowed_once_reset_has_passed_and_not_before() -> None:
    log = InMemorySlidingLog(100)
    for at in (0.0, 1.0, 2.0):
        log.decide(b"k", 2, 6, WINDOW_S, at)
    refused = log.decide(b"k", 3, 6, WINDOW_S, 4.0)
    assert not refused.allowed
    assert refused.reset_s == 7.0  # the second charge must expire, too
    assert not log.decide(b"k", 3, 6, WINDOW_S, 10.999).allowed
    assert log.decide(b"k", 3, 6, WINDOW_S, 11.0).allowed


def test_recorded_admissions__count_against_local_decisions() -> None:
    log = InMemorySlidingLog(100)
    log.record(b"k", 5, WINDOW_S, 0.0)
    assert not log.decide(b"k", 1, 5, WINDOW_S, 1.0).allowed


def test_more_units_than_any_limit__are_bounded_and_decide_as_if_all_were_kept() -> None:
    log = InMemorySlidingLog(100)
    for number in range(5 * MAX_LIMIT):
        log.record(b"k", 3, WINDOW_S, number / MAX_LIMIT)
    assert log.units == MAX_LIMIT
    refused = log.decide(b"k", 1, MAX_LIMIT, WINDOW_S, 5.0)
    last_in_the_way = 5 * MAX_LIMIT - MAX_LIMIT // 3 - 1  # the 333 after it are 999 units
    fits_again_s = last_in_the_way / MAX_LIMIT + WINDOW_S
    assert not refused.allowed
    assert refused.reset_s == pytest.approx(fits_again_s - 5.0)
    assert not log.decide(b"k", 1, MAX_LIMIT, WINDOW_S, fits_again_s - 0.0005).allowed
    assert log.decide(b"k", 1, MAX_LIMIT, WINDOW_S, fits_again_s + 0.0005).allowed


def test_keys_and_units__are_bounded_and_the_least_recently_used_key_goes() -> None:
    log = InMemorySlidingLog(50)
    for number in range(200):
        log.record(b"%d" % number, 1, WINDOW_S, 0.0)
    assert (len(log), log.units) == (50, 50)
    log = InMemorySlidingLog(100, max_units=10)
    for number in range(12):
        log.record(b"old" if number < 6 else b"new", 1, 60, float(number))
    assert (log.units, len(log)) == (6, 1)
    assert log.decide(b"new", 1, 7, 60, 12.0).remaining == 0
    log.decide(b"new", 1, 7, 60, 1_000.0)
    assert log.units == 1
