"""One measured number in two windows: unit, polarity, error bound, and how it changed."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from analyst.report.models import Reading, Unit
from common.contracts.thresholds import RuleMetric, ThresholdState

Method = Literal["exact", "sketch"]

NAMES: Final[dict[RuleMetric, tuple[str, Unit, int]]] = {
    # metric: (name in text, unit, polarity: +1 more is better, -1 more is worse, 0 neither)
    "requests": ("number of requests", "count", 0),
    "predictions": ("number of answered predictions", "count", 0),
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
    """A number, its unit, its method, its error bound, and the number of observations."""

    value: float
    unit: Unit
    method: Method
    rel_error: float
    n: int | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One metric, or one threshold rule (`rule.<name>`), in the current and the previous window."""

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
    n: int = 0  # observations in the current window; 0 for a rule
    previous_n: int = 0
    rule: ThresholdState | None = None
    label: str = ""
    route: str = ""

    def read(self, reading: Reading) -> Value | None:
        """Return the number, or None if it is unknown or the change is smaller than its error."""
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
        # rel_error is relative to the true value, and these are measured ones
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
        """Observations in the smaller of the two windows."""
        return min(self.n, self.previous_n)

    @property
    def direction(self) -> int:
        """+1 if it rose, -1 if it fell, 0 if the change is unknown or within its error."""
        delta = self.read("delta_abs")
        return 0 if delta is None else (delta.value > 0) - (delta.value < 0)


def quotient(numerator: float, denominator: float) -> float | None:
    """Return the ratio, or None if it is not finite."""
    ratio = numerator / denominator if denominator else math.inf
    return ratio if math.isfinite(ratio) else None
