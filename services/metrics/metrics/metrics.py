"""Prometheus metrics of ingestion, maintenance and alerting, with every label child created once."""

from collections.abc import Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.contracts.thresholds import AlertState, RuleFilter, ThresholdState
from metrics.ingest.parse import Reason

_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


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
            "sluice_metrics_ingest_retries", "Retries because a store was down or rejected a batch.", registry=registry
        )
        self.batch_events = Histogram(
            "sluice_metrics_batch_events", "Entries in a batch.", buckets=_BATCH_BUCKETS, registry=registry
        )
        self.batch_seconds = Histogram(
            "sluice_metrics_batch_seconds", "Time from read to acknowledged.", registry=registry
        )


class MaintenanceMetrics:
    """The latest measurements of maintenance."""

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
    """Evaluations and notifications of this replica."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.evaluations = Counter(
            "sluice_metrics_evaluations", "Ticks in which this replica evaluated the rules.", registry=registry
        )
        self.failures = Counter(
            "sluice_metrics_evaluation_failures", "Ticks in which the rules could not be evaluated.", registry=registry
        )
        transitions = Counter(
            "sluice_metrics_alert_transitions", "Alerts that came into a state.", ["state"], registry=registry
        )
        self.transitions = {state: transitions.labels(state) for state in get_args(AlertState)}
        sent = Counter("sluice_metrics_notifications", "Notifications by outcome.", ["outcome"], registry=registry)
        self.delivered, self.refused, self.given_up = map(sent.labels, ("delivered", "refused", "given_up"))
        self.rule_value = Gauge(
            "sluice_metrics_rule_value",
            "Current value of each threshold rule, on the replica that evaluated the last tick.",
            ["rule", "metric", "severity", "model", "route", "label"],
            registry=registry,
        )
        self.outbox = Gauge("sluice_metrics_notifications_waiting", "Notifications not taken yet.", registry=registry)

    def set_rules(self, states: Sequence[ThresholdState]) -> None:
        """Export the values of `states` in place of earlier ones. Rules without a value are absent."""
        self.rule_value.clear()
        for state in states:
            if state.current is not None:
                where = state.rule.where or RuleFilter()
                named = (state.rule.name, state.rule.metric, state.rule.severity)
                self.rule_value.labels(*named, where.model or "", where.route or "", where.label or "").set(
                    state.current
                )
