"""The state machine of an alert: pending, firing, resolved. Pure functions of the time that they are given."""

from dataclasses import dataclass, replace
from typing import Final

from common.contracts.thresholds import AlertState, ThresholdRule, ThresholdState
from common.contracts.windows import WINDOW_S
from metrics.ranges import SECOND

MISSED: Final = 3  # consecutive failed evaluations that end a pending alert


@dataclass(frozen=True, slots=True)
class AlertInstance:
    """One episode in which a rule exceeds its limit. Times are Unix time in µs. `seen_us` is when its value was last
    known, None in rows of older versions.
    """

    rule: ThresholdRule
    state: AlertState
    value: float | None
    pending_us: int
    firing_us: int | None = None
    healthy_us: int | None = None
    resolved_us: int | None = None
    seen_us: int | None = None


def transition(
    alert: AlertInstance | None, reading: ThresholdState, now_us: int, *, interval_s: float = 0.0
) -> AlertInstance | None:
    """Return the rule's alert after `reading`; None when there is no unresolved alert.

    A reading without enough samples changes nothing. A pending alert ends once its value has been unknown for
    longer than the rule's window and MISSED times the `interval_s` between evaluations.
    """
    if alert is not None and _is_stale(alert, now_us, interval_s):
        alert = None
    if reading.breached is None or reading.current is None:
        return alert
    if alert is None:
        alert = AlertInstance(reading.rule, "pending", reading.current, now_us)
    pending_us = min(alert.pending_us, now_us)  # in case the clock was set back
    alert = replace(alert, rule=reading.rule, value=reading.current, pending_us=pending_us, seen_us=now_us)
    if alert.state == "firing":
        return _maybe_resolve(alert, reading.current, now_us)
    if not reading.breached:
        return None
    is_due = now_us - alert.pending_us >= reading.rule.for_s * SECOND
    return replace(alert, state="firing", firing_us=now_us) if is_due else alert


def resolve(alert: AlertInstance, now_us: int) -> AlertInstance | None:
    """Return the alert after its rule was deleted."""
    return replace(alert, state="resolved", resolved_us=now_us) if alert.state == "firing" else None


def labels(rule: ThresholdRule) -> dict[str, str]:
    """Return the labels of the rule's alert. They identify the rule: one with other labels is another rule."""
    where = {} if rule.where is None else rule.where.model_dump(exclude_none=True)
    return where | {
        "alertname": rule.name,
        "metric": rule.metric,
        "service": "sluice",
        "severity": rule.severity,
        "window": rule.window,
    }


def fingerprint(rule: ThresholdRule) -> str:
    """Return the fingerprint that Prometheus and Alertmanager compute.

    FNV-1a over the sorted labels, with a byte 255 after each name and value.
    """
    value = 0xCBF29CE484222325
    for part in (part for pair in sorted(labels(rule).items()) for part in pair):
        for byte in (*part.encode(), 0xFF):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def _is_stale(alert: AlertInstance, now_us: int, interval_s: float) -> bool:
    if alert.state != "pending" or alert.seen_us is None:
        return False
    return now_us - alert.seen_us > max(WINDOW_S[alert.rule.window], MISSED * interval_s) * SECOND


def _maybe_resolve(alert: AlertInstance, value: float, now_us: int) -> AlertInstance:
    """Resolve once the value has been healthy for `keep_firing_for_s` without interruption."""
    if not _is_healthy(alert.rule, value):
        return replace(alert, healthy_us=None)
    healthy_us = now_us if alert.healthy_us is None else min(alert.healthy_us, now_us)
    if now_us - healthy_us < alert.rule.keep_firing_for_s * SECOND:
        return replace(alert, healthy_us=healthy_us)
    return replace(alert, state="resolved", healthy_us=healthy_us, resolved_us=now_us)


def _is_healthy(rule: ThresholdRule, value: float) -> bool:
    if rule.above is not None:
        return value <= (rule.above if rule.resolve_at is None else rule.resolve_at)
    assert rule.below is not None  # a rule has one of the two
    return value >= (rule.below if rule.resolve_at is None else rule.resolve_at)
