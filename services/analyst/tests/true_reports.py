"""Writes true reports as an engineer would, from the aggregate alone: neither the rules nor the facts are used."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from analyst.report.models import Draft, Evidence, Figure, Finding, Reading, Recommendation
from common.contracts.aggregates import Aggregate, Confidence, Drift, DriftReport, LabelShare, Latency, Summary
from common.contracts.events import Outcome
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import TimeRange

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES: Final = {
    "requests": ("Requests", 0),
    "throughput_per_s": ("Throughput", +1),
    "error_rate": ("The error rate", -1),
    "latency_ms.p50": ("The median latency", -1),
    "latency_ms.p95": ("The p95 latency", -1),
    "latency_ms.p99": ("p99", -1),
    "latency_ms.max": ("Maximum latency", -1),
    "confidence.mean": ("Mean confidence", +1),
}
DRIFTS: Final = {"labels": "label", "confidence": "confidence", "length": "length"}
ROSE: Final = ("rose", "increased", "grew", "went up", "climbed", "surged", "shot up")
FELL: Final = ("fell", "decreased", "dropped", "declined", "went down", "shrank", "eased")
SKETCH_ERROR: Final = 0.02
HYPOTHESES: Final = (
    "One replica may be saturated.",
    "The database might be under contention.",
    "It could be a cold start after a deployment.",
    "Possibly a burst from a single client.",
    "A noisy neighbour may take CPU time.",
    "Longer texts could explain part of it.",
    "The cause is not known from these metrics.",
    "It is unclear whether a deployment plays a part.",
)
CODES: Final = (
    "Clients may have seen HTTP 503 or HTTP 504.",
    "Refused requests get HTTP 429 and are not errors.",
    "Answers with status 502 would point at an upstream.",
    "5xx answers are counted by outcome.",
)
ADVICE: Final = (
    "Compare queue time with compute time.",
    "Check whether a replica is saturated.",
    "Look at the slowest requests by themselves.",
    "Review the latest deployment.",
    "Watch the p95 latency over the next window.",
    "Scale out if the load stays.",
    "Verify that clients honour Retry-After.",
    "Investigate the timeouts first.",
)


def random_aggregate(chance: random.Random) -> Aggregate:
    """Two hours of a service, calm or not, with limits kept or broken."""
    before = _summary(chance, NOON - timedelta(hours=1))
    now = _summary(chance, NOON)
    return Aggregate(**now, previous=Summary(**before), thresholds=_thresholds(chance, now), lag_s=chance.random())


def random_drift(chance: random.Random) -> DriftReport:
    """What moved against the day before, or did not."""
    drifts = {}
    for name in DRIFTS:
        psi, noise = chance.choice((0.01, 0.2, 0.6)) * chance.random(), 0.01 * chance.random()
        value = max(0.0, psi - noise)
        n = chance.randrange(200, 100_000)
        drifts[name] = Drift(n=n, reference_n=24 * n, psi=psi, noise=noise, value=value, drifted=value >= 0.1)
    day = TimeRange(start=NOON - timedelta(days=1), end=NOON)
    return DriftReport(range=TimeRange(start=NOON, end=NOON + timedelta(hours=1)), reference=day, lag_s=0.0, **drifts)


def true_report(aggregate: Aggregate, drift: DriftReport, window: str, status: str, chance: random.Random) -> Draft:
    """A few true sentences about what was measured, each figure cited."""
    writer = _Writer(aggregate, drift, window, status, chance)
    summary = f"{writer.opening()} {' '.join(chance.sample(writer.sentences(), 2))}"
    findings = [
        Finding(
            title=chance.choice(("Worth a look", "In this window", "A change", "What the metrics show")),
            severity="info",
            category="latency",
            detail=f"{sentence} {chance.choice((*HYPOTHESES, *CODES, ''))}".strip(),
            evidence=writer.cited_in(sentence),
        )
        for sentence in chance.sample(writer.sentences(), 3)
    ]
    advice = [
        Recommendation(
            action=chance.choice(ADVICE), priority="low", rationale=sentence, evidence=writer.cited_in(sentence)
        )
        for sentence in chance.sample(writer.sentences(), 1)
    ]
    return Draft(summary=summary, evidence=writer.evidence(), findings=findings, recommendations=advice)


def expected_value(document: dict[str, Any], figure: Figure) -> float:
    """What a figure must say, read by path from the JSON of an aggregate with `drift`; no code is the facts'."""
    if figure.metric.startswith("rule."):
        (state,) = [state for state in document["thresholds"] if f"rule.{state['rule']['name']}" == figure.metric]
        rule = state["rule"]
        limit = rule["below"] if rule["above"] is None else rule["above"]
        return float(state["current"] if figure.window == "current" else limit)
    if figure.metric.startswith("drift."):
        return float(document["drift"][figure.metric.partition(".")[2]]["value"])
    now, before = _look_up(document, figure.metric), _look_up(document["previous"], figure.metric)
    return {
        "current": lambda: now,
        "previous": lambda: before,
        "delta_abs": lambda: now - before,
        "delta_pct": lambda: (now / before - 1) * 100,
    }[figure.window]()


def _look_up(summary: dict[str, Any], metric: str) -> float:
    group, _, name = metric.partition(".")
    if metric == "latency_ms.tail_ratio":
        return float(summary["latency_ms"]["p99"] / summary["latency_ms"]["p50"])
    if group == "errors":
        return float(summary["errors"].get(name, 0))
    if group == "label_share":
        return float(next(label["share"] for label in summary["labels"] if label["label"].lower() == name))
    return float(summary[group][name] if name else summary[group])


@dataclass
class _Writer:
    aggregate: Aggregate
    drift: DriftReport
    window: str
    status: str
    chance: random.Random
    ids: dict[tuple[str, Reading], str] = field(default_factory=dict)

    def cite(self, metric: str, reading: Reading) -> str:
        return "{" + self.ids.setdefault((metric, reading), f"e{len(self.ids) + 1}") + "}"

    def evidence(self) -> list[Evidence]:
        return [Evidence(id=name, metric=metric, window=reading) for (metric, reading), name in self.ids.items()]

    def cited_in(self, sentence: str) -> list[str]:
        return [name for name in self.ids.values() if f"{{{name}}}" in sentence]

    def opening(self) -> str:
        requests = self.cite("requests", "current")
        return (
            self.chance.choice(
                (
                    f"In the last {self.window} there were {requests} requests.",
                    f"The status is {self.status.replace('_', ' ')}." if self.status != "insufficient_data" else "",
                    f"The service answered {requests} requests in this {self.window} window.",
                    f"Compared with the previous {self.window}, this is what changed.",
                )
            ).strip()
            or f"Requests in the window: {requests}."
        )

    def sentences(self) -> list[str]:
        return [*self._levels(), *self._changes(), *self._limits(), *self._errors(), *self._labels(), *self._drifts()]

    def _levels(self) -> list[str]:
        ratio = self.cite("latency_ms.tail_ratio", "current")
        p95, p50 = self.cite("latency_ms.p95", "current"), self.cite("latency_ms.p50", "current")
        return [
            f"The p95 latency is {p95} and the median is {p50}.",
            f"In the last {self.window} the p95 latency was {p95}.",
            f"The tail-to-median ratio is {ratio}.",
            f"The slowest request took {self.cite('latency_ms.max', 'current')}.",
            f"Mean confidence is {self.cite('confidence.mean', 'current')}.",
        ]

    def _changes(self) -> list[str]:
        found = []
        for metric, (name, polarity) in NAMES.items():
            now, before = _value(self.aggregate, metric), _value(self.aggregate.previous, metric)
            if abs(now - before) <= _error(self.aggregate, metric, now, before):
                continue  # nobody can say which way it went
            verb = self.chance.choice(ROSE if now > before else FELL)
            current, previous, by = (self.cite(metric, reading) for reading in ("current", "previous", "delta_abs"))
            worse = "better" if (now > before) == (polarity > 0) else "worse"
            found += [
                f"{name} {verb} by {by}.",
                f"{name} {verb} from {previous} to {current}.",
                f"{name} {verb} by {by} to {current} against the previous {self.window}.",
                f"{name} {verb} to {current}, from {previous} in the window before.",
                f"{name} {verb} ({by}).",
                f"{name} changed by {by}, and is at {current}.",
                f"At {current}, {name[0].lower()}{name[1:]} is the one to watch.",
            ]
            if polarity:
                found.append(f"{name} is {worse} than in the window before, at {current}.")
        return found

    def _limits(self) -> list[str]:
        found = []
        for state in self.aggregate.thresholds:
            value, limit = (self.cite(f"rule.{state.rule.name}", reading) for reading in ("current", "threshold"))
            over = f"Over the last {state.rule.window} the {_plain(state.rule.metric)} is {value}"
            side = "above" if state.breached else "below"
            found += [f"{over}, {side} its limit of {limit}.", f"{over}; the limit is {limit}."]
        return found

    def _errors(self) -> list[str]:
        return [
            f"There were {self.cite(f'errors.{outcome}', 'current')} {outcome.replace('_', ' ')} outcomes."
            for outcome in self.aggregate.errors
        ]

    def _drifts(self) -> list[str]:
        found = []
        for name, word in DRIFTS.items():
            value = self.cite(f"drift.{name}", "current")
            found.append(f"The {word} drift is {value} against the day before.")
            found.append(
                f"There is {'' if getattr(self.drift, name).drifted else 'no '}{word} drift: it is at {value}."
            )
        return found

    def _labels(self) -> list[str]:
        return [
            f'The share of "{share.label}" is {self.cite(f"label_share.{share.label.lower()}", "current")}.'
            for share in self.aggregate.labels
        ]


def _plain(metric: str) -> str:
    return {"latency_ms.p95": "p95 latency", "error_rate": "error rate"}[metric]


def _value(summary: Summary, metric: str) -> float:
    value: Any = summary
    for name in metric.split("."):
        value = getattr(value, name)
    return float(value)


def _error(aggregate: Aggregate, metric: str, now: float, before: float) -> float:
    """What the difference of two values may be wrong by, each within its share of the true one."""
    if not metric.startswith("latency_ms."):
        return 0.0
    share = max(summary.latency_ms.relative_error for summary in (aggregate, aggregate.previous))
    return share / (1 - share) * (now + before)


def _summary(chance: random.Random, start: datetime) -> dict[str, Any]:
    requests = chance.randrange(200, 100_000)
    errors: dict[Outcome, int] = {name: chance.randrange(1, requests // 50) for name in ("timeout", "unavailable")}
    p50 = chance.uniform(5, 200)
    p95 = p50 * chance.uniform(1.5, 8)
    p99 = p95 * chance.uniform(1.1, 3)
    is_sketch = chance.random() < 0.5
    answered = requests - sum(errors.values())
    positive = chance.randrange(answered)
    return {
        "range": TimeRange(start=start, end=start + timedelta(hours=1)),
        "requests": requests,
        "predictions": answered,
        "rate_limited": 0,
        "errors": errors,
        "throughput_per_s": requests / 3600,
        "error_rate": sum(errors.values()) / requests,
        "limited_rate": 0.0,
        "latency_ms": Latency(
            n=answered,
            mean=p50 * 1.3,
            p50=p50,
            p90=p95 * 0.8,
            p95=p95,
            p99=p99,
            max=p99 * 2,
            method="sketch" if is_sketch else "exact",
            relative_error=SKETCH_ERROR if is_sketch else 0.0,
        ),
        "labels": [
            LabelShare(label="POSITIVE", count=positive, share=positive / answered),
            LabelShare(label="NEGATIVE", count=answered - positive, share=1 - positive / answered),
        ],
        "confidence": Confidence(mean=chance.uniform(0.6, 0.99), histogram=[0] * 9 + [answered]),
    }


def _thresholds(chance: random.Random, now: dict[str, Any]) -> list[ThresholdState]:
    latency, errors = now["latency_ms"].p95, now["error_rate"]
    rules = (
        (ThresholdRule(name="p95-slow", metric="latency_ms.p95", above=latency * chance.uniform(0.7, 1.5)), latency),
        (
            ThresholdRule(name="errors", metric="error_rate", above=errors * chance.uniform(0.7, 1.5), window="15m"),
            errors,
        ),
    )
    return [ThresholdState(rule=rule, current=value, breached=value > (rule.above or 0)) for rule, value in rules]
