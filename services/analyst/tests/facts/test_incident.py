"""The onset and end of planted changes in noisy series."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from analyst.facts.incident import Incident, find_incident, high_segment
from common.contracts.aggregates import Aggregate, SeriesPoint

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _noise(chance: random.Random, n: int, start: int, end: int, factor: float) -> list[float]:
    return [chance.lognormvariate(3, 0.3) * (factor if start <= at < end else 1) for at in range(n)]


@pytest.mark.parametrize(("start", "end"), [(20, 30), (0, 20), (45, 60), (50, 53)])
def test_planted_segment__is_found_within_one_point(start: int, end: int) -> None:
    for seed in range(20):
        found = high_segment(_noise(random.Random(seed), 60, start, end, 10))
        assert found is not None
        assert abs(found[0] - start) <= 1
        assert abs(found[1] - end) <= 1


@pytest.mark.parametrize("n", [5, 30, 60, 180])
def test_noise__is_no_incident(n: int) -> None:
    found = [high_segment(_noise(random.Random(seed), n, 0, 0, 1)) for seed in range(50)]
    assert len([segment for segment in found if segment]) <= 1
    assert high_segment([0.0] * n) is None


@pytest.mark.parametrize(
    ("signal", "change"),
    [
        ("latency_up", {"p95": 900.0}),
        ("errors_timeout", {"errors": 40}),
        ("volume_up", {"requests": 900}),
        ("volume_down", {"requests": 5}),
        ("limited_up", {"rate_limited": 50}),
    ],
)
def test_incident__is_in_the_series_of_its_signal(
    make_aggregate: Callable[..., Aggregate], signal: str, change: dict[str, float]
) -> None:
    chance = random.Random(1)
    points = []
    for minute in range(60):
        values: dict[str, float] = {
            "requests": chance.randint(90, 110),
            "predictions": 90,
            "errors": 0,
            "rate_limited": 0,
        }
        values |= {"p95": chance.uniform(90, 110)} | (change if 30 <= minute < 40 else {})
        points.append(SeriesPoint.model_validate({"at": NOON + timedelta(minutes=minute)} | values))
    aggregate = make_aggregate().model_copy(update={"series": points})
    expected = Incident(NOON + timedelta(minutes=30), NOON + timedelta(minutes=40))
    assert find_incident(aggregate, signal) == expected
    assert find_incident(aggregate, "label_shift") is None
    assert find_incident(aggregate.model_copy(update={"series": points[:40]}), signal) == Incident(expected.onset, None)
