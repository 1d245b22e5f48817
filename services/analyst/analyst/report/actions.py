"""What can be done: each action applies to the likely causes and the signals it answers."""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

_RUNBOOKS: Final = "docs/operations/alerts.md"


@dataclass(frozen=True, slots=True)
class Action:
    """`how` is a command, a request or a runbook."""

    key: str
    sentence: str
    how: str
    hypotheses: frozenset[str] = field(default_factory=frozenset)
    signals: frozenset[str] = field(default_factory=frozenset)

    def applies(self, hypotheses: Set[str], signals: Set[str]) -> bool:
        return bool(self.hypotheses & hypotheses or self.signals & signals)


ACTIONS: Final = (
    Action(
        "scale_inference",
        "Add inference replicas.",
        "kubectl scale deployment/inference --replicas=N, or docker compose up -d --scale inference=N",
        frozenset({"traffic_spike", "longer_texts", "fewer_cached"}),
    ),
    Action(
        "shorten_texts",
        "Ask the clients that send long texts to shorten or split them.",
        "GET /metrics/predictions lists tokens and client of each prediction",
        frozenset({"longer_texts", "length_changed"}),
    ),
    Action(
        "check_cpu",
        "Check whether the CPU of inference is throttled or shared.",
        f"{_RUNBOOKS}#sluicepredictionsslow",
        frozenset({"slow_engine"}),
    ),
    Action(
        "check_replicas",
        "Check which replicas are down or restarting.",
        f"kubectl get pods, or make status; {_RUNBOOKS}#sluiceservicedown",
        frozenset({"dead_replica"}),
    ),
    Action(
        "check_overload",
        "Check whether inference refuses texts because its queue is full.",
        f"{_RUNBOOKS}#sluiceinferenceoverloaded",
        frozenset({"traffic_spike"}),
        frozenset({"errors_unavailable", "queue_up"}),
    ),
    Action(
        "check_restarts",
        "Check whether a deployment emptied the cache of predictions.",
        f"{_RUNBOOKS}#sluiceservicerestarting",
        frozenset({"fewer_cached"}),
    ),
    Action(
        "read_route_errors",
        "List the failed predictions of the route.",
        "GET /metrics/predictions?outcome=OUTCOME",
        frozenset({"one_route"}),
    ),
    Action(
        "read_error_logs",
        "Read the log entries of the failed requests; they carry the request id of the answer.",
        f"{_RUNBOOKS}#sluiceerrorbudgetfastburn",
        frozenset({"defect"}),
        frozenset({"errors_error", "errors_bad_gateway", "errors_up"}),
    ),
    Action(
        "check_deadlines",
        "Compare the latency with the deadlines that clients send in X-Request-Timeout-Ms.",
        f"{_RUNBOOKS}#sluiceerrorbudgetfastburn",
        frozenset({"deadlines"}),
        frozenset({"errors_timeout"}),
    ),
    Action(
        "fix_client",
        "Find the client of the invalid requests; the answers say what is wrong with them.",
        "GET /metrics/predictions?outcome=invalid",
        frozenset({"invalid_requests"}),
    ),
    Action(
        "own_policy",
        "Give the client its own policy if it should be allowed more.",
        "docs/operations.md#limits-by-a-policy-file",
        frozenset({"limited_client"}),
    ),
    Action(
        "tell_client",
        "Ask the client to wait for Retry-After before it repeats a request.",
        "docs/http.md#limits",
        frozenset({"limited_client"}),
    ),
    Action(
        "compare_inputs",
        "Compare recent inputs with earlier ones.",
        "GET /metrics/drift?window=1h&reference=24h",
        frozenset({"input_drift"}),
    ),
    Action(
        "evaluate_model",
        "Label a sample of recent inputs and measure the accuracy of the model on it.",
        "GET /metrics/predictions lists recent predictions",
        frozenset({"input_drift"}),
    ),
    Action(
        "check_reachability",
        "Send a prediction from outside, along the path of the clients.",
        "curl -i URL/predict -d '{\"text\": \"hello\"}' -H 'Content-Type: application/json'",
        frozenset({"clients_gone"}),
    ),
    Action(
        "look_at_slowest",
        "Look at the slowest predictions: their tokens, queue and compute time.",
        "GET /metrics/predictions lists latency, queue and compute time",
        frozenset({"length_changed"}),
        frozenset({"latency_up", "tail"}),
    ),
    Action(
        "watch_latency",
        "Watch the latency while the traffic stays high.",
        "GET /dashboard",
        signals=frozenset({"volume_up"}),
    ),
    Action(
        "review_threshold",
        "Review the threshold if the service meets its goals.",
        "PUT /metrics/thresholds",
        signals=frozenset({"volume_down", "latency_down", "errors_down", "confidence_up"}),
    ),
)
BY_KEY: Final = {action.key: action for action in ACTIONS}
