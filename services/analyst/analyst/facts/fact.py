"""One measured number with its unit, polarity, method and error, and what may be said of its change; reads nothing."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from analyst.report.models import Reading, Unit
from common.contracts.thresholds import RuleMetric, ThresholdState

Method = Literal["exact", "sketch"]

NAMES: Final[dict[RuleMetric, tuple[str, Unit, int]]] = {
    # metric: (how prose calls it, its unit, polarity: +1 more is better, -1 more is worse, 0 neither)
    "requests": ("requests", "count", 0),
    "predictions": ("answered predictions", "count", 0),
    "throughput_per_s": ("throughput", "per_s", +1),
    "error_rate": ("error rate", "share", -1),
    "limited_rate": ("share of rate-limited requests", "share", -1),
    "latency_ms.mean": ("mean latency", "ms", -1),
    "latency_ms.p50": ("median latency", "ms", -1),
    "latency_ms.p90": ("p90 latency", "ms", -1),
    "latency_ms.p95": ("p95 latency", "ms", -1),
    "latency_ms.p99": ("p99 latency", "ms", -1),
    "latency_ms.max": ("maximum latency", "ms", -1),
    "confidence.mean": ("mean confidence", "score", +1),
    "drift.labels": ("label drift", "score", -1),
    "drift.confidence": ("confidence drift", "score", -1),
    "drift.length": ("length drift", "score", -1),
    "label_share": ("label share", "share", 0),
    "accuracy": ("accuracy", "share", +1),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A number with what is known about it: how it was made, its error bound and the observations behind it."""

    value: float
    unit: Unit
    method: Method
    rel_error: float
    n: int | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One metric (or one threshold rule, `rule.<name>`) in the current and the previous window."""

    id: str
    metric: str
    name: str
    unit: Unit
    polarity: int
    current: float | None
    previous: float | None = None
    threshold: float | None = None
    method: Method = "exact"
    rel_error: float = 0.0
    n: int = 0  # observations in the current window; not told for a rule
    previous_n: int = 0
    rule: ThresholdState | None = None
    label: str = ""

    def read(self, reading: Reading) -> Value | None:
        """The number, or None where there is none, or where the change is smaller than its own error."""
        if reading == "delta_abs" or reading == "delta_pct":
            return self._delta(reading)
        value = {"current": self.current, "previous": self.previous, "threshold": self.threshold}[reading]
        if value is None:
            return None
        if reading == "threshold":
            return Value(value, self.unit, "exact", 0.0, None)
        n = self.n if reading == "current" else self.previous_n
        return Value(value, self.unit, self.method, self.rel_error, None if self.rule else n)

    def _delta(self, reading: Reading) -> Value | None:
        if self.current is None or self.previous is None:
            return None
        # rel_error is against the true value, and what we hold is the measured one
        relative = self.rel_error / (1 - self.rel_error)
        if reading == "delta_abs":
            difference = self.current - self.previous
            return self._changed(difference, relative * (abs(self.current) + abs(self.previous)), self.unit)
        ratio = quotient(self.current, self.previous)
        if ratio is None:
            return None
        return self._changed((ratio - 1) * 100, 200 * relative * abs(ratio), "percent")

    def _changed(self, change: float, error: float, unit: Unit) -> Value | None:
        if error and error >= abs(change):
            return None
        return Value(change, unit, self.method, error / abs(change) if error else 0.0, self.compared_n)

    @property
    def compared_n(self) -> int:
        """Observations behind a comparison of the two windows: those of the smaller one."""
        return min(self.n, self.previous_n)

    @property
    def direction(self) -> int:
        """+1 rose, -1 fell, 0 did not change by more than its error, or is not known."""
        delta = self.read("delta_abs")
        return 0 if delta is None else (delta.value > 0) - (delta.value < 0)


def quotient(numerator: float, denominator: float) -> float | None:
    """None where it is not a number that a report can show."""
    ratio = numerator / denominator if denominator else math.inf
    return ratio if math.isfinite(ratio) else None
