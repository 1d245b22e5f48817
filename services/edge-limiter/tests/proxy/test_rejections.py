from collections.abc import Sequence

from common.contracts.events import CounterEvent
from edge_limiter.proxy.rejections import MAX_BUCKETS, Refusals


def test_flood__becomes_one_event_per_second_route_policy_and_outcome() -> None:
    recorded: list[CounterEvent] = []
    now = [100.2]
    refusals = Refusals(recorded.extend, lambda: now[0])
    for _ in range(1_000):
        refusals.count(429, "/predict", "predict")
    refusals.count(502, "/metrics", None)
    refusals.count(404, "/metrics", None)
    now[0] = 101.0
    refusals.count(429, "/predict", "predict")
    refusals.flush(before_second=101)
    assert [(e.at_us, e.route, e.policy, e.outcome, e.n) for e in recorded] == [
        (100_000_000, "/predict", "predict", "limited", 1_000),
        (100_000_000, "/metrics", "", "bad_gateway", 1),
    ]
    refusals.flush()
    refusals.flush()
    assert [e.n for e in recorded] == [1_000, 1, 1]


def test_failed_flush__keeps_the_counts() -> None:
    recorded: list[CounterEvent] = []
    failing = [True]

    def record(events: Sequence[CounterEvent]) -> None:
        if failing[0]:
            raise OSError
        recorded.extend(events)

    refusals = Refusals(record, lambda: 1.0)
    refusals.count(503, "/predict", "predict")
    try:
        refusals.flush()
    except OSError:
        failing[0] = False
    refusals.flush()
    assert [e.n for e in recorded] == [1]


def test_buckets__are_bounded() -> None:
    recorded: list[CounterEvent] = []
    refusals = Refusals(recorded.extend, lambda: 1.0)
    for number in range(MAX_BUCKETS + 5):
        refusals.count(504, f"/{number}", None)
    refusals.flush()
    assert len(recorded) == MAX_BUCKETS
