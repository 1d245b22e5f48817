"""Adds up rollup rows and turns the sums into the bodies of the contract; it reads no storage."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from common.contracts import (
    Confidence,
    Filters,
    GroupBy,
    LabelShare,
    Latency,
    Outcome,
    SeriesPoint,
    Summary,
)
from metrics.histogram import LATENCY, RELATIVE_ERROR, SCORE, STRIDE, percentiles, sketch_us
from metrics.windows import Range, as_time

ANSWERED: Final = "ok"
LIMITED: Final = "limited"


class Source(NamedTuple):
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
    """What one source did in one slot."""

    slot: int
    source: Source
    latency_max_us: int
    n: int
    latency_sum_us: int
    scored: int
    score_sum_ppm: int
    bins: Sequence[int]
    counts: Sequence[int]

    @property
    def is_of_predictions(self) -> bool:
        """Not of counters, which have no latency."""
        return bool(self.bins)


class Tally:
    """The sum of rows. Percentiles are exact once `add_exact` has told the latency of every answered prediction."""

    def __init__(self, histograms: int = 4) -> None:
        """`histograms` says how many of the four to keep: a month has many bins that no summary shows."""
        self._until = histograms * STRIDE
        self.outcomes: Counter[Outcome] = Counter()
        self.labels: Counter[str] = Counter()
        self._bins: dict[int, int] = defaultdict(int)
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
        until = bisect_left(row.bins, self._until)
        added = zip(row.bins[:until], row.counts, strict=False)
        if not self._bins:
            self._bins.update(added)
            return
        bins = self._bins
        for bin, n in added:
            bins[bin] += n

    def add_exact(self, latency_us: int) -> None:
        """The latency of one of the answered predictions that `add` counted."""
        self._exact_us[latency_us] += 1
        self._exact_n += 1

    def merge(self, other: "Tally") -> None:
        """Count all that `other` counted."""
        self.outcomes.update(other.outcomes)
        self.labels.update(other.labels)
        for mine, theirs in ((self._bins, other._bins), (self._exact_us, other._exact_us)):
            for bin, n in theirs.items():
                mine[bin] += n
        self._exact_n += other._exact_n
        self._latency_sum_us += other._latency_sum_us
        self._latency_max_us = max(self._latency_max_us, other._latency_max_us)
        self._scored += other._scored
        self._score_sum_ppm += other._score_sum_ppm

    def histogram(self, which: int) -> Mapping[int, int]:
        """One of the four histograms, its bins numbered from 0."""
        start = which * STRIDE
        return {bin - start: n for bin, n in self._bins.items() if start <= bin < start + STRIDE}

    def percentiles_ms(self, *shares: float) -> list[float | None]:
        """Null where nothing was answered."""
        if not self.predictions:
            return [None for _ in shares]
        if self._is_exact:
            return [latency_us / 1000 for latency_us in percentiles(self._exact_us, *shares)]
        bins = percentiles(self.histogram(LATENCY), *shares)
        return [min(sketch_us(bin), self._latency_max_us) / 1000 for bin in bins]

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
            relative_error=0.0 if self._is_exact else RELATIVE_ERROR,
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

    @property
    def _is_exact(self) -> bool:
        return self._exact_n == self.predictions

    def _label_shares(self) -> list[LabelShare]:
        ordered = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))
        return [LabelShare(label=label, count=n, share=n / self.predictions) for label, n in ordered]

    def _confidence(self) -> Confidence:
        mean = self._score_sum_ppm / 1_000_000 / self._scored if self._scored else None
        return Confidence(mean=mean, histogram=[self._bins.get(SCORE * STRIDE + tenth, 0) for tenth in range(10)])
