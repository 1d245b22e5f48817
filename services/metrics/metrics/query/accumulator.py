"""Adds up rollup rows and turns the sums into the bodies of the contract; it reads no storage."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from common.contracts.aggregates import (
    SKETCH_RELATIVE_ERROR,
    Confidence,
    Filters,
    GroupBy,
    LabelShare,
    Latency,
    SeriesPoint,
    Summary,
)
from common.contracts.events import Outcome
from metrics.ranges import Range, as_time
from metrics.storage.histogram import LATENCY, SCORE, bins, percentiles, sketch_us, spread

ANSWERED: Final = "ok"
LIMITED: Final = "limited"


class GroupKey(NamedTuple):
    """What tells one stream of events from another; `label` is empty where there is none."""

    model: str
    route: str
    outcome: Outcome
    label: str

    def matches(self, filters: Filters) -> bool:
        return (
            (filters.model is None or filters.model == self.model)
            and (filters.route is None or filters.route == self.route)
            and (filters.outcome is None or filters.outcome == self.outcome)
            and (filters.label is None or filters.label == self.label)
        )

    def group(self, group_by: Sequence[GroupBy]) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in group_by)


class Row(NamedTuple):
    """What one source did in one slot; `singles` of the `n` are predictions, with a row of their own each."""

    slot: int
    source: GroupKey
    latency_max_us: int
    n: int
    singles: int
    latency_sum_us: int
    scored: int
    score_sum_ppm: int
    histograms: Sequence[int]


class Accumulator:
    """The sum of rows. Percentiles are exact once `add_exact` has told the latency of every answered prediction."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.labels: Counter[str] = Counter()
        self._histograms = [0, 0, 0]
        self._exact_us: dict[int, int] = defaultdict(int)
        self._exact_n = 0
        self._latency_sum_us = 0
        self._latency_max_us = 0
        self._scored = 0
        self._score_sum_ppm = 0

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    @property
    def predictions(self) -> int:
        return self.outcomes[ANSWERED]

    @property
    def rate_limited(self) -> int:
        return self.outcomes[LIMITED]

    @property
    def errors(self) -> int:
        return self.requests - self.predictions - self.rate_limited

    def add(self, row: Row) -> None:
        """Count `row`; latency, labels and confidence are those of answered predictions only."""
        self.outcomes[row.source.outcome] += row.n
        if row.source.outcome != ANSWERED:
            return
        self.labels[row.source.label] += row.n
        self._latency_sum_us += row.latency_sum_us
        self._latency_max_us = max(self._latency_max_us, row.latency_max_us)
        self._scored += row.scored
        self._score_sum_ppm += row.score_sum_ppm
        self._merge(row.histograms)

    def add_exact(self, latency_us: int) -> None:
        """The latency of one of the answered predictions that `add` counted."""
        self._exact_us[latency_us] += 1
        self._exact_n += 1

    def merge(self, other: "Accumulator") -> None:
        """Count all that `other` counted."""
        self.outcomes.update(other.outcomes)
        self.labels.update(other.labels)
        self._merge(other._histograms)
        for latency_us, n in other._exact_us.items():
            self._exact_us[latency_us] += n
        self._exact_n += other._exact_n
        self._latency_sum_us += other._latency_sum_us
        self._latency_max_us = max(self._latency_max_us, other._latency_max_us)
        self._scored += other._scored
        self._score_sum_ppm += other._score_sum_ppm

    def histogram(self, which: int) -> dict[int, int]:
        """The bins of one of the histograms."""
        return bins(self._histograms[which])

    def percentiles_ms(self, *shares: float) -> list[float | None]:
        """Null where nothing was answered."""
        if not self.predictions:
            return [None for _ in shares]
        if self._is_exact:
            values = sorted(self._exact_us)
            found = percentiles(values, map(self._exact_us.__getitem__, values), *shares)
            return [latency_us / 1000 for latency_us in found]
        found = percentiles(*spread(self._histograms[LATENCY]), *shares)
        return [min(sketch_us(bin), self._latency_max_us) / 1000 for bin in found]

    def latency(self) -> Latency:
        p50, p90, p95, p99 = self.percentiles_ms(0.5, 0.9, 0.95, 0.99)
        return Latency(
            n=self.predictions,
            mean=self._latency_sum_us / self.predictions / 1000 if self.predictions else None,
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            max=self._latency_max_us / 1000 if self.predictions else None,
            method="exact" if self._is_exact else "sketch",
            relative_error=0.0 if self._is_exact else SKETCH_RELATIVE_ERROR,
        )

    def summary(self, range: Range) -> Summary:
        requests = self.requests
        let_through = requests - self.rate_limited
        return Summary(
            range=range.body(),
            requests=requests,
            predictions=self.predictions,
            rate_limited=self.rate_limited,
            errors={outcome: n for outcome, n in sorted(self.outcomes.items()) if outcome not in (ANSWERED, LIMITED)},
            throughput_per_s=self.predictions / range.seconds,
            error_rate=self.errors / let_through if let_through else None,
            limited_rate=self.rate_limited / requests if requests else None,
            latency_ms=self.latency(),
            labels=self._label_shares(),
            confidence=self._confidence(),
        )

    def point(self, at_us: int) -> SeriesPoint:
        p50, p95, p99 = self.percentiles_ms(0.5, 0.95, 0.99)
        return SeriesPoint(
            at=as_time(at_us),
            requests=self.requests,
            predictions=self.predictions,
            errors=self.errors,
            rate_limited=self.rate_limited,
            p50=p50,
            p95=p95,
            p99=p99,
        )

    def _merge(self, histograms: Sequence[int]) -> None:
        self._histograms = [mine + theirs for mine, theirs in zip(self._histograms, histograms, strict=True)]

    @property
    def _is_exact(self) -> bool:
        return self._exact_n == self.predictions

    def _label_shares(self) -> list[LabelShare]:
        ordered = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))
        return [LabelShare(label=label, count=n, share=n / self.predictions) for label, n in ordered]

    def _confidence(self) -> Confidence:
        mean = self._score_sum_ppm / 1_000_000 / self._scored if self._scored else None
        tenths = self.histogram(SCORE)
        return Confidence(mean=mean, histogram=[tenths.get(tenth, 0) for tenth in range(10)])
