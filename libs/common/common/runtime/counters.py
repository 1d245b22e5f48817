"""Counters and histograms that one event loop writes: an increment takes no lock and makes no object.

Those of `prometheus_client` lock, check and look up at each call, and a request makes half a dozen of them. It still
writes the page: these are collectors of its registry.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Counts(Collector):
    """A counter by labels."""

    def __init__(self, name: str, told: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._told = told
        self._labels = labels
        self._counts: dict[tuple[object, ...], int] = {}
        registry.register(self)

    def add(self, *labels: object, n: int = 1) -> None:
        """Count `n` under `labels`, which must be bounded in number and are shown as strings."""
        self._counts[labels] = self._counts.get(labels, 0) + n

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._told, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric([str(label) for label in labels], count)
        yield family


class Spread:
    """One line of a histogram: how many values were at most each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as Prometheus wants them, each with all that is below it, and the sum."""
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class Spreads(Collector):
    """A histogram by labels."""

    def __init__(
        self, name: str, told: str, bounds: Sequence[float], registry: CollectorRegistry, labels: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._told = told
        self._bounds = bounds
        self._labels = labels
        self._spreads: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def at(self, *labels: str) -> Spread:
        """The line under `labels`, which must be bounded in number; it is shown from now on."""
        spread = self._spreads.get(labels)
        if spread is None:
            spread = self._spreads[labels] = Spread(self._bounds)
        return spread

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._told, labels=self._labels)
        for labels, spread in self._spreads.items():
            family.add_metric(labels, *spread.told())
        yield family
