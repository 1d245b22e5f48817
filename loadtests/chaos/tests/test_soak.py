from dataclasses import replace

from chaos.soak import NAMES, Row, Table, judged
from chaos.watch import Sample

FLAT = Sample(0.0, 1, 100.0, 20, 10)


def row(p99_ms: float = 10.0, failed: int = 0, tables: tuple[Table, ...] = (), **changed: Sample) -> Row:
    return Row(60.0, 1_000, 0, failed, 5.0, p99_ms, dict.fromkeys(NAMES, FLAT) | changed, list(tables))


def test_twelve_equal_stretches__are_flat() -> None:
    assert judged([row()] * 12) == []


def test_warm_up__does_not_count() -> None:
    assert judged([row(metrics=FLAT._replace(rss_mib=50.0))] * 3 + [row()] * 9) == []


def test_memory_descriptors_and_tasks_that_grow__are_named() -> None:
    for field in ("rss_mib", "fds", "tasks"):
        grown = FLAT._replace(**{field: 200})
        assert judged([row()] * 8 + [row(metrics=grown)] * 4)[0].startswith(f"metrics: {field}")
    assert judged([row()] * 8 + [row(postgres=FLAT._replace(rss_mib=200.0))] * 4) == []  # its data


def test_slower_answers__are_named_unless_one_stretch_was_as_fast() -> None:
    assert judged([row()] * 8 + [row(p99_ms=30.0)] * 4) == ["best p99 10.0 to 30.0 ms"]
    assert judged([row()] * 8 + [row(p99_ms=30.0)] * 3 + [row()]) == []


def test_machine_that_starves_its_programs__is_not_judged_by_its_times() -> None:
    starved = replace(row(p99_ms=900.0, failed=5), slowness=3.0)
    assert judged([row()] * 8 + [starved] * 4) == []
    leaking = replace(starved, samples=starved.samples | {"metrics": FLAT._replace(rss_mib=200.0)})
    assert judged([row()] * 8 + [leaking] * 4) == ["metrics: rss_mib 100 to 200"]


def test_failed_request__is_named() -> None:
    assert judged([row()] * 11 + [row(failed=1)]) == ["1 requests failed"]


def test_table_that_grows_without_rows__is_named() -> None:
    small, large = Table("metrics.rollup", 100, 5, 8 << 20), Table("metrics.rollup", 110, 5, 30 << 20)
    assert judged([row(tables=(small,))] * 8 + [row(tables=(large,))] * 4) == [
        "metrics.rollup: 8 to 30 MiB for 110 rows"
    ]
    more = Table("metrics.rollup", 400, 5, 30 << 20)
    assert judged([row(tables=(small,))] * 8 + [row(tables=(more,))] * 4) == []
    dead = Table("metrics.rollup", 100, 9_000, 8 << 20)
    assert judged([row(tables=(dead,))] * 12) == ["metrics.rollup: 9,000 dead rows of 100"]
