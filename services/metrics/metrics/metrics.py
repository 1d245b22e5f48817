"""Prometheus metrics of ingestion, with every label child made once."""

from collections import Counter as Counted
from collections.abc import Iterator, Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from common.contracts.thresholds import AlertState
from metrics.ingest.parse import Reason

_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
_OCTAVES: Final = range(7, 26)  # 128 µs to 34 s


class IngestionMetrics:
    """Shared by all consumers of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ingested = Counter("sluice_metrics_ingested", "Events stored and rolled up.", ["kind"], registry=registry)
        self.predictions = ingested.labels("prediction")
        self.counters = ingested.labels("counter")
        self.duplicates = Counter("sluice_metrics_duplicates", "Events that had been stored before.", registry=registry)
        dead = Counter("sluice_metrics_dead_letters", "Entries set aside.", ["reason"], registry=registry)
        self.dead_letters = {reason: dead.labels(reason) for reason in get_args(Reason)}
        self.retries = Counter(
            "sluice_metrics_ingest_retries", "Times a store was away or refused a batch.", registry=registry
        )
        self.latency = LatencyHistogram(registry)
        self.batch_events = Histogram(
            "sluice_metrics_batch_events", "Entries in a batch.", buckets=_BATCH_BUCKETS, registry=registry
        )
        self.batch_seconds = Histogram(
            "sluice_metrics_batch_seconds", "Time from read to acknowledged.", registry=registry
        )


class LatencyHistogram(Collector):
    """Latency of answered predictions in octaves of the γ grid, so that its buckets are sums of stored bins.

    Each prediction is counted by the process that stored it, once: the sum over replicas is exact.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._octaves: Counted[int] = Counted()
        self._sum_us = 0
        registry.register(self)

    def add(self, octaves: Mapping[int, int], sum_us: int) -> None:
        """Count predictions by the octave `k` of their latency, (2^(k-1), 2^k] µs."""
        self._octaves.update(octaves)
        self._sum_us += sum_us

    def collect(self) -> Iterator[HistogramMetricFamily]:
        buckets = [
            (repr(2**top / 1_000_000), float(sum(n for octave, n in self._octaves.items() if octave <= top)))
            for top in _OCTAVES
        ]
        family = HistogramMetricFamily("sluice_prediction_latency_seconds", "Latency of answered predictions.")
        family.add_metric([], [*buckets, ("+Inf", float(self._octaves.total()))], self._sum_us / 1_000_000)
        yield family


class MaintenanceMetrics:
    """What upkeep measured last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag_entries = Gauge(
            "sluice_metrics_lag_entries", "Stream entries not settled; NaN when unknown.", registry=registry
        )
        self.lag_seconds = Gauge(
            "sluice_metrics_lag_seconds", "Age of the oldest of them; NaN when unknown.", registry=registry
        )
        self.days_ahead = Gauge(
            "sluice_metrics_partitions_ahead", "Days from today that have a partition.", registry=registry
        )
        self.default_rows = Gauge(
            "sluice_metrics_default_partition_rows", "Rows that no day's partition took.", registry=registry
        )
        self.partitions = Gauge("sluice_metrics_partitions", "Partitions of raw events.", registry=registry)


class AlertMetrics:
    """What this replica judged and sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.evaluations = Counter(
            "sluice_metrics_evaluations", "Ticks in which this replica judged the rules.", registry=registry
        )
        self.failures = Counter(
            "sluice_metrics_evaluation_failures", "Ticks in which the rules could not be judged.", registry=registry
        )
        transitions = Counter(
            "sluice_metrics_alert_transitions", "Alerts that came into a state.", ["state"], registry=registry
        )
        self.transitions = {state: transitions.labels(state) for state in get_args(AlertState)}
        sent = Counter("sluice_metrics_notifications", "Notifications by outcome.", ["outcome"], registry=registry)
        self.delivered, self.refused, self.given_up = map(sent.labels, ("delivered", "refused", "given_up"))
        self.outbox = Gauge("sluice_metrics_notifications_waiting", "Notifications not taken yet.", registry=registry)
