"""Likely causes: each applies where its effect and its evidence were both observed."""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from analyst.report.models import Confidence


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`effects`, `evidence` and `unless` are signals of observations; `unless` rules the hypothesis out."""

    key: str
    sentence: str
    effects: frozenset[str]
    evidence: frozenset[str]
    unless: frozenset[str] = field(default_factory=frozenset)

    def applies(self, signals: Set[str]) -> bool:
        return bool(self.effects & signals and self.evidence & signals) and not self.unless & signals

    def confidence(self, signals: Set[str]) -> Confidence:
        levels: tuple[Confidence, ...] = ("low", "medium", "high")
        return levels[min(len(self.evidence & signals), 3) - 1]


_SLOW: Final = frozenset({"latency_up", "tail", "errors_timeout", "errors_unavailable"})
_FAILING: Final = frozenset({"errors_up", "errors_timeout", "errors_unavailable", "errors_bad_gateway", "errors_error"})

HYPOTHESES: Final = (
    Hypothesis(
        "longer_texts",
        "Texts are longer, so the model takes more time for each.",
        _SLOW,
        frozenset({"tokens_up"}),
    ),
    Hypothesis(
        "slow_engine",
        "The model takes more time for texts of the same length: its CPU may be throttled or shared.",
        _SLOW,
        frozenset({"compute_up"}),
        frozenset({"tokens_up", "drift_length"}),
    ),
    Hypothesis(
        "traffic_spike",
        "More requests arrive than the inference replicas can process in time.",
        _SLOW,
        frozenset({"volume_up", "queue_up"}),
        frozenset({"tokens_up", "volume_down"}),
    ),
    Hypothesis(
        "fewer_cached",
        "Fewer answers come from the cache, so more texts are computed.",
        frozenset({"latency_up"}),
        frozenset({"cache_down"}),
    ),
    Hypothesis(
        "length_changed",
        "The length of the texts changed; longer texts take more time.",
        _SLOW,
        frozenset({"drift_length"}),
        frozenset({"tokens_up"}),
    ),
    Hypothesis(
        "dead_replica",
        "A replica or a service is down or restarting.",
        _FAILING | {"latency_up"},
        frozenset({"errors_unavailable", "errors_bad_gateway"}),
        frozenset({"volume_up", "tokens_up"}),
    ),
    Hypothesis(
        "one_route",
        "The failures have to do with one route.",
        _FAILING,
        frozenset({"route_errors"}),
    ),
    Hypothesis(
        "defect",
        "The service or the model fails with internal errors.",
        _FAILING,
        frozenset({"errors_error"}),
    ),
    Hypothesis(
        "deadlines",
        "Requests miss their deadline, or clients set a short one.",
        _FAILING,
        frozenset({"errors_timeout"}),
    ),
    Hypothesis(
        "invalid_requests",
        "A client sends requests that are not valid.",
        frozenset({"errors_up", "errors_invalid"}),
        frozenset({"errors_invalid"}),
    ),
    Hypothesis(
        "limited_client",
        "Clients exceed their rate limit; the limiter works as configured.",
        frozenset({"limited_up"}),
        frozenset({"limited_up", "volume_up"}),
    ),
    Hypothesis(
        "input_drift",
        "The inputs changed: the model receives other texts than before.",
        frozenset({"confidence_down", "label_shift", "drift_labels", "drift_confidence", "drift_length"}),
        frozenset({"label_shift", "drift_labels", "drift_confidence", "drift_length"}),
    ),
    Hypothesis(
        "clients_gone",
        "Clients stopped sending requests, or cannot reach the service.",
        frozenset({"volume_down"}),
        frozenset({"volume_down"}),
    ),
)
BY_KEY: Final = {hypothesis.key: hypothesis for hypothesis in HYPOTHESES}
