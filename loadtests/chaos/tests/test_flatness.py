from dataclasses import replace

from chaos.soak import flatness
from chaos.soak.flatness import NAMES, Row, Table, reached, starved_share
from chaos.system.watch import Sample

FLAT = Sample(0.0, 1, 100.0, 20, 10)


def row(p99_ms: float = 10.0, failed: int = 0, tables: tuple[Table, ...] = (), **changed: Sample) -> Row:
    return Row(60.0, 1_000, 600, 0, failed, 5.0, p99_ms, dict.fromkeys(NAMES, FLAT) | changed, list(tables))


def growth(rows: list[Row]) -> list[str]:
    """Check rows of one minute with ten predictions per second."""
    return flatness.growth([replace(one, until_s=60.0 * n) for n, one in enumerate(rows, 1)], rate=10.0)


def test_twelve_equal_stretches__are_flat() -> None:
    assert growth([row()] * 12) == []


def test_warm_up__does_not_count() -> None:
    assert growth([row(metrics=FLAT._replace(rss_mib=50.0))] * 3 + [row()] * 9) == []


def test_memory_descriptors_and_tasks_that_grow__are_named() -> None:
    for field, named in (("rss_mib", "rss_mib"), ("fds", "own_fds"), ("tasks", "tasks")):
        grown = FLAT._replace(**{field: 200})
        assert growth([row()] * 8 + [row(metrics=grown)] * 4)[0].startswith(f"metrics: {named}")
    assert growth([row()] * 8 + [row(postgres=FLAT._replace(rss_mib=200.0))] * 4) == []  # its data


def test_connections_that_clients_keep__are_no_growth() -> None:
    more_clients = FLAT._replace(fds=220, clients=200)
    crowded = replace(row(), samples=row().samples | {"edge-limiter": more_clients})
    assert growth([row()] * 8 + [crowded] * 4) == []


def test_slower_answers__are_named_though_one_stretch_was_as_fast() -> None:
    assert growth([row()] * 8 + [row(p99_ms=30.0)] * 3 + [row()]) == ["p99 10.0 to 30.0 ms"]
    assert growth([row()] * 10 + [row(p99_ms=30.0)] + [row()]) == []


def test_slow_leak__is_seen_by_its_slope_and_an_outlier_is_none() -> None:
    leak = [row(metrics=FLAT._replace(rss_mib=100.0 + 2.5 * n)) for n in range(12)]
    assert growth(leak) == ["metrics: rss_mib 110 to 128"]
    once = [row()] * 9 + [row(metrics=FLAT._replace(rss_mib=500.0))] + [row()] * 2
    assert growth(once) == []


def test_descriptors_that_only_scatter__are_no_growth() -> None:
    scattered = [74, 92, 86, 121, 105, 99, 110, 109, 102, 121, 124, 99]  # in an hour
    assert growth([row(inference=FLAT._replace(fds=fds)) for fds in scattered]) == []
    rising = [74, 92, 86, 99, 99, 105, 102, 109, 110, 121, 121, 124]
    assert growth([row(inference=FLAT._replace(fds=fds)) for fds in rising]) == ["inference: own_fds 99 to 124"]


def test_memory_that_steps_up_at_the_end__is_named_without_a_trend() -> None:
    risen = FLAT._replace(rss_mib=200.0)
    assert growth([row()] * 10 + [row(inference=risen)] * 2) == ["inference: rss_mib 100 to 200"]


def test_leak_that_begins_late__is_seen() -> None:
    late = [20, 21, 20, 21, 20, 20, 21, 20, 21, 40, 60, 80]
    assert growth([row(inference=FLAT._replace(fds=fds)) for fds in late]) == ["inference: own_fds 20 to 62"]


def test_rate_that_is_not_reached__is_named() -> None:
    assert growth([replace(row(), predictions=540)] * 12) == ["9 predictions a second were answered, not 10"]
    assert growth([replace(row(), predictions=570)] * 12) == []
    assert reached([replace(row(), until_s=60.0), replace(row(), until_s=120.0)]) == 10.0


def test_load_that_is_shed__is_named() -> None:
    assert growth([replace(row(), shed=11)] * 12) == ["99 requests were shed"]
    assert growth([replace(row(), shed=10)] * 12) == []


def test_machine_that_starves_its_programs_too_often__leaves_too_little_to_judge() -> None:
    assert starved_share([row()] * 3 + [replace(row(), slowness=3.0)] * 9) == 1.0
    assert starved_share([replace(row(), slowness=3.0)] * 3 + [row()] * 9) == 0.0


def test_service_that_is_seldom_seen__is_named() -> None:
    unseen = replace(row(), samples={name: FLAT for name in NAMES if name != "metrics"})
    assert growth([row()] * 4 + [unseen] * 8) == ["metrics did not say its tasks in half of the stretches"]


def test_machine_that_is_starved__is_not_checked_by_its_times() -> None:
    starved = replace(row(p99_ms=900.0, failed=5), slowness=3.0)
    assert growth([row()] * 8 + [starved] * 4) == []
    leaking = replace(starved, samples=starved.samples | {"metrics": FLAT._replace(rss_mib=200.0)})
    assert growth([row()] * 8 + [leaking] * 4) == ["metrics: rss_mib 100 to 200"]


def test_failed_request__is_named() -> None:
    assert growth([row()] * 11 + [row(failed=1)]) == ["1 requests failed"]


def test_table_that_grows_without_rows__is_named() -> None:
    small, large = Table("metrics.rollup", 100, 5, 8 << 20), Table("metrics.rollup", 110, 5, 30 << 20)
    assert growth([row(tables=(small,))] * 8 + [row(tables=(large,))] * 4) == [
        "metrics.rollup: 8 to 30 MiB for 110 rows"
    ]
    more = Table("metrics.rollup", 400, 5, 30 << 20)
    assert growth([row(tables=(small,))] * 8 + [row(tables=(more,))] * 4) == []
    dead = Table("metrics.rollup", 100, 9_000, 8 << 20)
    assert growth([row(tables=(dead,))] * 12) == ["metrics.rollup: 9,000 dead rows of 100"]
