import json
from datetime import UTC, datetime

from chaos.edge_log import degraded
from chaos.windows import Span

DOWN, UP = "rate limiter degraded", "rate limiter exact again"


def line(at_s: float, event: str) -> str:
    return json.dumps({"timestamp": datetime.fromtimestamp(at_s, UTC).isoformat(), "event": event})


def test_stretches__are_read_between_the_edges_words() -> None:
    lines = [line(1, "listening"), "no json", line(2, DOWN), line(5, UP), line(8, DOWN), '{"event": 1}', "[1]"]
    assert degraded(lines, [], 10) == [Span(2, 5), Span(8, 10)]


def test_death__ends_a_stretch_and_the_next_edge_begins_its_own() -> None:
    assert degraded([line(2, DOWN), line(6, DOWN), line(7, UP)], [4.0], 10) == [Span(2, 4), Span(6, 7)]
    assert degraded([line(2, DOWN)], [4.0], 10) == [Span(2, 4)]
