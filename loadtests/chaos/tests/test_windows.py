import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.answers import Answer
from chaos.windows import Charge, Rule, Span, charges_by_address, overfull, wrongly_refused

RULE = Rule(limit=3, window_s=10.0)


def answer(sent_s: float, status: int = 200, *, latency_s: float = 0.0, cost: int = 1) -> Answer:
    return Answer(f"{sent_s}", "/predict", "192.0.2.1", cost, sent_s, sent_s + latency_s, status, counted=status == 200)


def exact_limiter(seed: int) -> list[Answer]:
    """Return what a client sees of an exact limiter that decides at a random time within each request."""
    chance, admitted, answers = random.Random(seed), list[tuple[float, int]](), []
    moments = sorted(chance.uniform(0, 60) for _ in range(60))
    for at_s in moments:
        cost = chance.choice((1, 1, 2))
        held = sum(units for then_s, units in admitted if then_s > at_s - RULE.window_s)
        fits = held + cost <= RULE.limit
        if fits:
            admitted.append((at_s, cost))
        before_s, after_s = chance.uniform(0, 2), chance.uniform(0, 2)
        answers.append(answer(at_s - before_s, 200 if fits else 429, latency_s=before_s + after_s, cost=cost))
    return answers


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers())
def test_exact_limiter__is_never_accused(seed: int) -> None:
    answers = exact_limiter(seed)
    assert overfull(charges_by_address(answers)["192.0.2.1"], RULE) is None
    assert wrongly_refused(answers, RULE) is None


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3)), max_size=30))
def test_without_latency__a_window_is_found_just_when_one_is_overfull(charged: list[tuple[int, int]]) -> None:
    units: dict[int, int] = defaultdict(int)
    for at_s, cost in charged:
        units[at_s] += cost
    is_overfull = any(sum(units[at_s] for at_s in range(start, start + 10)) > RULE.limit for start in range(61))
    charges = [Charge(at_s, at_s, cost) for at_s, cost in charged]
    assert (overfull(charges, RULE) is not None) == is_overfull


def test_a_switch__excuses_twice_the_limit_and_no_more() -> None:
    rule = Rule(3, 10.0, outages=[Span(4.0, 5.0)])
    assert overfull([Charge(float(n), float(n), 1) for n in range(6)], rule) is None
    assert overfull([Charge(n, n, 1) for n in (0, 1, 2, 3, 4, 5, 6)], rule) == (Span(0, 10), 7)
    assert overfull([Charge(n, n, 1) for n in (20, 21, 22, 23)], rule) is not None


def test_window_within_one_outage__holds_one_limit() -> None:
    rule = Rule(3, 10.0, outages=[Span(0.0, 30.0)], alone=[Span(4.0, 30.0)])
    four = [Charge(n, n, 1) for n in (5, 6, 7, 8)]
    assert overfull(four, rule) == (Span(5, 15), 4)
    assert overfull([Charge(n, n, 1) for n in (1, 2, 3, 5)], rule) is None  # it started before


def test_a_death_within_an_outage__excuses_one_limit_more() -> None:
    charges = [Charge(n, n, 1) for n in range(9)]
    assert overfull(charges, Rule(3, 10.0, [Span(4.0, 9.0)])) is not None
    assert overfull(charges, Rule(3, 10.0, [Span(4.0, 9.0)], deaths=[4.5])) is None
    assert overfull(charges, Rule(3, 10.0, deaths=[4.5])) is not None


def test_refusal_with_room__is_found_unless_an_outage_excuses_it() -> None:
    answers = [answer(0), answer(1), answer(2, 429)]
    found = wrongly_refused(answers, RULE)
    assert found is not None and found.sent_s == 2
    assert wrongly_refused(answers, Rule(3, 10.0, [Span(1.5, 1.6)])) is None


def test_request_whose_connection_broke__may_have_been_charged() -> None:
    broken = Answer("x", "/predict", "192.0.2.1", 1, 0.5, 0.6, None)
    assert wrongly_refused([answer(0), broken, answer(1), answer(2, 429)], RULE) is None
