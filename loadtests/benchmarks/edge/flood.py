"""Measure what a refusal costs when clients over their limit keep sending, and whether any reaches PostgreSQL."""

from dataclasses import dataclass
from typing import Final

from benchmarks.edge.rounds import Contender, closed_loop, load
from benchmarks.edge.testbed import Testbed

BLOCKED: Final = 1_000
_LIMITER_STATEMENTS: Final = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = '{database}' AND s.query LIKE '%INTO edge.admissions%'
"""


@dataclass(frozen=True, slots=True)
class Flood:
    """Refusals in one round, and how often they made PostgreSQL run the limiter's statement."""

    per_second: float
    cpu_us: float
    statements: int


def block_clients(testbed: Testbed, contender: Contender, connections: int) -> None:
    """Send until every client is over its limit."""
    while set(load(testbed.folder, contender.port, 1.0, connections, BLOCKED)["statuses"]) != {"429"}:
        pass
    assert _statements(testbed, contender), "the limiter's statement was not found in pg_stat_statements"


def flood(testbed: Testbed, contender: Contender, *, seconds: float, connections: int) -> Flood:
    """Measure one round, in which every answer must be 429 and no statement may run."""
    before = _statements(testbed, contender)
    result, cpu_us, _ = closed_loop(
        testbed, contender, "429", seconds=seconds, connections=connections, clients=BLOCKED
    )
    statements = _statements(testbed, contender) - before
    if statements:
        raise SystemExit(f"{contender.label}: {statements} statements of the limiter during the flood, not 0")
    return Flood(result["statuses"]["429"]["count"] / result["seconds"], cpu_us, statements)


def _statements(testbed: Testbed, contender: Contender) -> int:
    assert contender.edge is not None
    return int(testbed.postgres.execute(_LIMITER_STATEMENTS.format(database=contender.edge.database)))
