"""PostgreSQL is killed, and then stopped without closing its connections, for 20 s under load."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psutil

from benchmarks.edge import rounds
from benchmarks.edge.edges import Edge, create_database, start_edge, wait_exact, working_tree
from benchmarks.edge.proofs.claims import LIMIT, Claim, burst
from benchmarks.edge.testbed import Testbed, testbed
from launcher.postgres import Postgres

OUTAGE_S: Final = 20.0
LEAD_S, TAIL_S = 4.0, 6.0
RATE, CONNECTIONS = 200.0, 64


def prove() -> Iterator[Claim]:
    with testbed() as bed:
        version = working_tree()
        database = create_database(bed, version, "outages")
        edges = [start_edge(bed, version, database) for _ in range(2)]
        yield from _outage(bed, edges, "killed", Postgres.kill, Postgres.start, "198.19.0.1")
        yield from _outage(bed, edges, "hung", _suspend, _resume, "198.19.0.2")


def _outage(
    bed: Testbed,
    edges: list[Edge],
    kind: str,
    begin: Callable[[Postgres], None],
    end: Callable[[Postgres], None],
    address: str,
) -> Iterator[Claim]:
    with ThreadPoolExecutor() as pool:
        seconds = LEAD_S + OUTAGE_S + TAIL_S
        loads = [
            pool.submit(rounds.load, bed.folder, edge.port, seconds, CONNECTIONS, rounds.CLIENTS, RATE)
            for edge in edges
        ]
        time.sleep(LEAD_S)
        begin(bed.postgres)
        time.sleep(OUTAGE_S)
        end(bed.postgres)
        recovery_s = max(wait_exact(edge) for edge in edges)
        found = [load.result()["statuses"] for load in loads]
    yield Claim(
        f"every request is answered with 200 while PostgreSQL is {kind} for {OUTAGE_S:g} s",
        all(set(statuses) == {"200"} for statuses in found),
        "; ".join(map(_summary, found)),
    )
    statuses = burst([f"http://127.0.0.1:{edge.port}" for edge in edges], address, 100)
    yield Claim(
        f"limits are exact once it has recovered: 100 requests through two edges admit {LIMIT}",
        statuses == {200: LIMIT, 429: 100 - LIMIT},
        f"{dict(statuses)}, {recovery_s:.1f} s after recovery",
    )


def _summary(statuses: dict[str, Any]) -> str:
    return ", ".join(f"{one['count']} × {status}, p99 {one['p99_ms']:.0f} ms" for status, one in statuses.items())


def _suspend(postgres: Postgres) -> None:
    for process in _family(postgres):
        process.suspend()


def _resume(postgres: Postgres) -> None:
    for process in _family(postgres):
        process.resume()


def _family(postgres: Postgres) -> list[psutil.Process]:
    assert postgres.process is not None
    server = psutil.Process(postgres.process.pid)
    return [server, *server.children(recursive=True)]
