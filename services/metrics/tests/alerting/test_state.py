"""Alerts become pending, firing and resolved at the right second."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts.thresholds import ThresholdRule, ThresholdState
from metrics.alerting.state import AlertInstance, fingerprint, labels, resolve, transition

SECOND = 1_000_000


def rule(**fields: Any) -> ThresholdRule:
    usual = {"name": "slow", "metric": "latency_ms.p95", "above": 100.0, "resolve_at": 80.0, "for_s": 30}
    return ThresholdRule.model_validate(usual | fields)


def reading(of: ThresholdRule, value: float | None) -> ThresholdState:
    if value is None:
        return ThresholdState(rule=of, current=None, breached=None)
    breached = value > of.above if of.above is not None else value < (of.below or 0)
    return ThresholdState(rule=of, current=value, breached=breached)


def states(of: ThresholdRule, *values: float | None) -> list[str | None]:
    """Return the states after values ten seconds apart, until resolved."""
    episode: AlertInstance | None = None
    seen: list[str | None] = []
    for tick, value in enumerate(values):
        episode = transition(episode, reading(of, value), tick * 10 * SECOND)
        seen.append(episode.state if episode else None)
        if episode and episode.state == "resolved":
            episode = None
    return seen


def test_breach__is_pending_for_its_time_and_then_fires() -> None:
    assert states(rule(), 90, 101, 101, 101, 101) == [None, "pending", "pending", "pending", "firing"]


def test_rule_without_a_wait__fires_at_once() -> None:
    assert states(rule(for_s=0), 101) == ["firing"]


def test_breach_that_ends_early__leaves_no_alert_and_starts_anew() -> None:
    assert states(rule(), 101, 101, 99, 101, 101, 101, 101) == [
        "pending", "pending", None, "pending", "pending", "pending", "firing",
    ]  # fmt: skip


def test_value_between_limit_and_resolve_at__neither_starts_nor_ends_an_alert() -> None:
    assert states(rule(for_s=0), 90, 101, 90, 81, 80) == [None, "firing", "firing", "firing", "resolved"]


def test_alert__keeps_firing_until_it_was_healthy_without_a_break() -> None:
    kept = rule(for_s=0, keep_firing_for_s=20)
    assert states(kept, 101, 70, 70, 85, 70, 70, 70) == ["firing"] * 6 + ["resolved"]


def test_silence__is_neither_health_nor_sickness() -> None:
    assert states(rule(for_s=10), None, 101, None, 101, None, None, 70) == [
        None, "pending", "pending", "firing", "firing", "firing", "resolved",
    ]  # fmt: skip


def test_evaluations_further_apart_than_the_window__are_no_silence() -> None:
    pending = transition(None, reading(rule(for_s=600), 101), 0)
    found = transition(pending, reading(rule(for_s=600), 101), 601 * SECOND, interval_s=600)
    assert found is not None
    assert found.state == "firing"


def test_silence_longer_than_the_window__ends_a_wait_and_no_alert() -> None:
    pending = transition(None, reading(rule(for_s=600), 101), 0)
    firing = transition(None, reading(rule(for_s=0), 101), 0)
    assert pending is not None and firing is not None
    for silence_s, since_s in ((300, 0), (301, 301)):
        found = transition(pending, reading(rule(for_s=600), 101), silence_s * SECOND)
        assert found is not None
        assert (found.state, found.pending_us) == ("pending", since_s * SECOND)
    assert transition(pending, reading(rule(for_s=600), None), 300 * SECOND) == pending
    assert transition(pending, reading(rule(for_s=600), None), 301 * SECOND) is None
    assert transition(firing, reading(rule(for_s=0), None), 36_000 * SECOND) == firing


@pytest.mark.parametrize(("silence_s", "waited_s"), [(600, 600), (601, 0)])
def test_silence__is_three_evaluations_that_failed_where_these_are_far_apart(silence_s: int, waited_s: int) -> None:
    now_us = 1_790_000_000 * SECOND
    pending = transition(None, reading(rule(for_s=6000), 101), now_us, interval_s=200)
    now_us += silence_s * SECOND
    found = transition(pending, reading(rule(for_s=6000), 101), now_us, interval_s=200)
    assert found is not None
    assert (found.state, found.pending_us) == ("pending", now_us - waited_s * SECOND)


def test_wait_stored_before_its_last_reading_was_kept__goes_on() -> None:
    stored = AlertInstance(rule(for_s=600), "pending", 101.0, 0)
    found = transition(stored, reading(rule(for_s=600), 101), 600 * SECOND)
    assert found is not None
    assert (found.state, found.seen_us) == ("firing", 600 * SECOND)


def test_limit_that_is_changed__holds_for_an_alert_that_fires() -> None:
    firing = transition(None, reading(rule(for_s=0), 101), 0)
    eased = rule(for_s=0, above=200.0, resolve_at=150.0)
    found = transition(firing, reading(eased, 120), 10 * SECOND)
    assert found is not None
    assert (found.state, found.rule) == ("resolved", eased)


@pytest.mark.parametrize(
    ("limits", "values"),
    [({}, (101, 101, 100)), ({"metric": "confidence.mean", "above": None, "below": 0.6}, (0.5, 0.59, 0.6))],
)
def test_rule_without_resolve_at__resolves_at_its_limit(limits: dict[str, Any], values: tuple[float, ...]) -> None:
    assert states(rule(for_s=0, resolve_at=None, **limits), *values) == ["firing", "firing", "resolved"]


def test_limit_below__is_the_other_way_round() -> None:
    sure = rule(metric="confidence.mean", above=None, below=0.6, resolve_at=0.65, for_s=0)
    assert states(sure, 0.6, 0.59, 0.64, 0.65) == [None, "firing", "firing", "resolved"]


def test_moments__are_those_of_the_readings() -> None:
    episode: AlertInstance | None = None
    for tick, value in enumerate([101, 101, 101, 101, 70]):
        episode = transition(episode, reading(rule(), value), tick * 10 * SECOND)
    assert episode is not None
    assert (episode.pending_us, episode.firing_us, episode.resolved_us) == (0, 30 * SECOND, 40 * SECOND)
    assert episode.value == 70


def test_clock_that_was_set_back__starts_waits_anew() -> None:
    kept = rule(keep_firing_for_s=20)
    episode = transition(None, reading(kept, 101), 1_000 * SECOND)
    seen = []
    for tick, value in enumerate([101, 101, 101, 101, 70]):
        episode = transition(episode, reading(kept, value), tick * 10 * SECOND)
        seen.append(episode.state if episode else None)
    assert seen == ["pending"] * 3 + ["firing"] * 2
    for second, state in ((0, "firing"), (20, "resolved")):
        episode = transition(episode, reading(kept, 70), second * SECOND)
        assert episode is not None and episode.state == state


def test_rule_that_is_taken_away__resolves_only_what_fired() -> None:
    firing = transition(None, reading(rule(for_s=0), 101), 0)
    pending = transition(None, reading(rule(), 101), 0)
    assert firing is not None and pending is not None
    ended = resolve(firing, SECOND)
    assert ended is not None and (ended.state, ended.resolved_us) == ("resolved", SECOND)
    assert resolve(pending, SECOND) is None


@given(st.lists(st.none() | st.floats(60, 120), max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_alert__never_skips_a_state(values: list[float | None], for_s: int, keep_s: int) -> None:
    seen = states(rule(for_s=for_s, keep_firing_for_s=keep_s), *values)
    allowed: dict[str | None, set[str | None]] = {
        None: {None, "pending", "firing"},
        "pending": {None, "pending", "firing"},
        "firing": {"firing", "resolved"},
        "resolved": {None, "pending", "firing"},
    }
    for before, after in zip([None, *seen], seen, strict=False):
        assert after in allowed[before]


def test_fingerprint__is_that_of_prometheus_and_changes_with_the_labels_only() -> None:
    assert fingerprint(rule()) == fingerprint(rule(above=200.0, resolve_at=None, for_s=1, min_samples=5))
    others = [
        rule(name="other"),
        rule(severity="critical"),
        rule(window="1h"),
        rule(metric="latency_ms.p99"),
        rule(where={"route": "/x"}),
    ]
    assert len({fingerprint(one) for one in (rule(), *others)}) == 6
    value = 14695981039346656037
    for byte in b"".join(f"{k}\xff{v}\xff".encode("latin-1") for k, v in sorted(labels(rule()).items())):
        value = (value ^ byte) * 1099511628211 % 2**64
    assert fingerprint(rule()) == f"{value:016x}"


@pytest.mark.parametrize("reference", ["24h"])
def test_reference__is_for_drift_only(reference: str) -> None:
    with pytest.raises(ValueError, match="drift"):
        rule(reference=reference)
    assert rule(metric="drift.labels", above=0.1, resolve_at=None, reference=reference).reference == reference
