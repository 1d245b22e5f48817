"""The same month in an embedded ClickHouse with an aggregating view; runs in a Python that has `chdb`, prints JSON.

python clickhouse.py rows.csv 20
"""

import json
import sys
import tempfile
import time

from chdb.session import Session

_TABLES = (
    "CREATE DATABASE bench ENGINE = Atomic",
    "CREATE TABLE bench.raw (at DateTime('UTC'), model LowCardinality(String), route LowCardinality(String), "
    "outcome LowCardinality(String), label LowCardinality(String), latency_us UInt32) ENGINE = MergeTree ORDER BY at",
    "CREATE TABLE bench.rollup (day Date, model LowCardinality(String), route LowCardinality(String), "
    "outcome LowCardinality(String), label LowCardinality(String), n AggregateFunction(count), "
    "latency AggregateFunction(quantilesTDigest(0.5, 0.9, 0.95, 0.99), UInt32)) "
    "ENGINE = AggregatingMergeTree ORDER BY (day, model, route, outcome, label)",
    "CREATE MATERIALIZED VIEW bench.rolled TO bench.rollup AS SELECT toDate(at) AS day, model, route, outcome, label, "
    "countState() AS n, quantilesTDigestState(0.5, 0.9, 0.95, 0.99)(latency_us) AS latency "
    "FROM bench.raw GROUP BY day, model, route, outcome, label",
)
_ANSWER = (
    "SELECT day, outcome, countMerge(n), quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency) "
    "FROM bench.rollup GROUP BY GROUPING SETS ((day, outcome), (outcome)) ORDER BY day, outcome"
)
_RAW = "SELECT quantilesTDigest(0.5, 0.9, 0.95, 0.99)(latency_us) FROM bench.raw WHERE outcome = 'ok'"


def timed_ms(session: Session, sql: str, rounds: int) -> list[float]:
    session.query(sql)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        session.query(sql)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def main(rows: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder)
        for statement in _TABLES:
            session.query(statement)
        started = time.perf_counter()
        columns = "epoch Int64, model String, route String, outcome String, label String, latency_us UInt32"
        session.query(
            "INSERT INTO bench.raw SELECT toDateTime(epoch, 'UTC'), model, route, outcome, label, latency_us "
            f"FROM file('{rows}', 'CSV', '{columns}')"
        )
        filled_s = time.perf_counter() - started
        session.query("OPTIMIZE TABLE bench.rollup FINAL")
        version = str(session.query("SELECT version()", "CSV")).strip().strip('"')
        # Its result lacks confidence, thresholds and the previous window, which ours has.
        found = {"fill_s": filled_s, "view_ms": timed_ms(session, _ANSWER, rounds), "version": version}
        print(json.dumps(found | {"raw_ms": timed_ms(session, _RAW, 3)}))


main(sys.argv[1], int(sys.argv[2]))
