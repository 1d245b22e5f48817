"""Adds up rollup rows and turns the sums into response bodies."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from common.contracts.aggregates import (
    SKETCH_RELATIVE_ERROR,
    Confidence,
    Distribution,
    Filters,
    GroupBy,
    LabelShare,
    Latency,
    SeriesPoint,
    Summary,
)
from common.contracts.events import Outcome
from metrics.ranges import Range, as_time
from metrics.storage.histogram import (
    CHARACTERS,
    COMPUTE,
    LATENCY,
    QUEUE,
    SCORE,
    TOKENS,
    bin_value,
    bins,
    percentiles,
    spread,
)

ANSWERED: Final = "ok"
LIMITED: Final = "limited"
Origin = Literal["", "cache", "model"]
_MS: Final = 1_000  # µs
_ONE: Final = 1_000_000  # ppm


class GroupKey(NamedTuple):
    """The key of a rollup row. `label` and `model` are empty if there is none."""

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
    """The counts of one slot. `origin` is where answers came from, empty if that was not recorded."""

    slot: int
    key: GroupKey
    origin: Origin
    latency_max_us: int
    n: int
    latency_sum_us: int
    scored: int
    score_sum_ppm: int
    queue_sum_us: int
    compute_sum_us: int
    tokens_sum: int
    histograms: Sequence[int]


class Sum:
    """Count, sum, maximum and histogram of one quantity."""

    __slots__ = ("histogram", "largest", "n", "total")

    def __init__(self) -> None:
        self.n = self.total = self.largest = self.histogram = 0

    def add(self, n: int, total: int, histogram: int, largest: int = 0) -> None:
        self.n += n
        self.total += total
        self.histogram += histogram
        self.largest = max(self.largest, largest)

    def merge(self, other: "Sum") -> None:
        self.add(other.n, other.total, other.histogram, other.largest)

    def mean(self, unit: int = 1) -> float | None:
        return self.total / self.n / unit if self.n else None

    def percentiles(self, *shares: float, unit: int = 1) -> list[float | None]:
        """Return estimates within SKETCH_RELATIVE_ERROR, or None for each share without values."""
        if not self.histogram:
            return [None for _ in shares]
        found = [bin_value(bin) for bin in percentiles(*spread(self.histogram), *shares)]
        return [(min(value, self.largest) if self.largest else value) / unit for value in found]

    def latency(self) -> Latency:
        p50, p90, p95, p99 = self.percentiles(0.5, 0.9, 0.95, 0.99, unit=_MS)
        return Latency(
            n=self.n,
            mean=self.mean(_MS),
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            max=self.largest / _MS if self.n else None,
            method="sketch",
            relative_error=SKETCH_RELATIVE_ERROR,
        )

    def distribution(self, unit: int = 1) -> Distribution:
        p50, p95, p99 = self.percentiles(0.5, 0.95, 0.99, unit=unit)
        return Distribution(n=self.n, mean=self.mean(unit), p50=p50, p95=p95, p99=p99)


class Accumulator:
    """The sum of rows. Latency, labels and confidence cover answered predictions only.

    `computed` and the fields after it exclude answers from the cache.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.labels: Counter[str] = Counter()
        self.cached = 0
        self.latency, self.computed = Sum(), Sum()
        self.queue, self.compute, self.tokens = Sum(), Sum(), Sum()
        self._score, self._characters = Sum(), Sum()

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

    @property
    def cached_share(self) -> float | None:
        known = self.cached + self.computed.n
        return self.cached / known if known else None

    def add(self, row: Row) -> None:
        self.outcomes[row.key.outcome] += row.n
        if row.key.outcome != ANSWERED:
            return
        self.labels[row.key.label] += row.n
        histograms = row.histograms
        self.latency.add(row.n, row.latency_sum_us, histograms[LATENCY], row.latency_max_us)
        self._score.add(row.scored, row.score_sum_ppm, histograms[SCORE])
        self._characters.add(row.n, 0, histograms[CHARACTERS])
        if row.origin == "cache":
            self.cached += row.n
        elif row.origin == "model":
            self.computed.add(row.n, row.latency_sum_us, histograms[LATENCY], row.latency_max_us)
            self.queue.add(row.n, row.queue_sum_us, histograms[QUEUE])
            self.compute.add(row.n, row.compute_sum_us, histograms[COMPUTE])
            self.tokens.add(row.n, row.tokens_sum, histograms[TOKENS])

    def merge(self, other: "Accumulator") -> None:
        """Count everything that `other` counted."""
        self.outcomes.update(other.outcomes)
        self.labels.update(other.labels)
        self.cached += other.cached
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            mine.merge(theirs)

    def scores(self) -> dict[int, int]:
        """Return the counts of scores by tenth."""
        return bins(self._score.histogram)

    def lengths(self) -> dict[int, int]:
        """Return the counts of text lengths by quarter octave."""
        return bins(self._characters.histogram)

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
            latency_ms=self.latency.latency(),
            labels=self._label_shares(),
            confidence=self._confidence(),
            cached_share=self.cached_share,
            computed_latency_ms=self.computed.latency(),
            queue_ms=self.queue.distribution(_MS),
            compute_ms=self.compute.distribution(_MS),
            tokens=self.tokens.distribution(),
        )

    def point(self, at_us: int) -> SeriesPoint:
        p50, p95, p99 = self.latency.percentiles(0.5, 0.95, 0.99, unit=_MS)
        return SeriesPoint(
            at=as_time(at_us),
            requests=self.requests,
            predictions=self.predictions,
            errors=self.errors,
            rate_limited=self.rate_limited,
            p50=p50,
            p95=p95,
            p99=p99,
            cached_share=self.cached_share,
            queue_p95_ms=self.queue.percentiles(0.95, unit=_MS)[0],
            compute_p95_ms=self.compute.percentiles(0.95, unit=_MS)[0],
            tokens_mean=self.tokens.mean(),
        )

    def _sums(self) -> tuple[Sum, ...]:
        return self.latency, self.computed, self.queue, self.compute, self.tokens, self._score, self._characters

    def _label_shares(self) -> list[LabelShare]:
        ordered = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))
        return [LabelShare(label=label, count=n, share=n / self.predictions) for label, n in ordered]

    def _confidence(self) -> Confidence:
        tenths = self.scores()
        return Confidence(mean=self._score.mean(_ONE), histogram=[tenths.get(tenth, 0) for tenth in range(10)])
