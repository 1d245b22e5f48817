"""Names and ports of the four services."""

import pytest

from launcher.services import PortError, addresses, services


def test_ports__start_at_the_base_and_ops_ports_a_thousand_above() -> None:
    found = services({})
    assert [service.name for service in found] == ["edge-limiter", "inference", "metrics", "analyst"]
    assert [service.port for service in found] == [8000, 8001, 8002, 8003]
    assert [service.ops_port for service in found] == [9000, 9001, 9002, 9003]
    assert [service.is_front for service in found] == [True, False, False, False]


def test_port_base__shifts_all_and_a_services_own_port_wins() -> None:
    found = services({"SLUICE_PORT_BASE": "18000", "METRICS_PORT": "7000", "ANALYST_OPS_PORT": "7001"})
    assert [service.port for service in found] == [18000, 18001, 7000, 18003]
    assert [service.ops_port for service in found] == [19000, 19001, 19002, 7001]


def test_addresses__lead_to_the_ports_and_hosts_that_were_chosen() -> None:
    chosen = {"INFERENCE_PORT": "8501", "METRICS_HOST": "0.0.0.0", "ANALYST_HOST": "::1", "ANALYST_PORT": "8503"}
    assert addresses(services(chosen)) == {
        "EDGE_UPSTREAM_INFERENCE": "http://127.0.0.1:8501",
        "EDGE_UPSTREAM_METRICS": "http://127.0.0.1:8002",
        "ANALYST_METRICS_URL": "http://127.0.0.1:8002",
        "EDGE_UPSTREAM_ANALYST": "http://[::1]:8503",
    }


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:80", "0", "70000", "-1"])
def test_port_that_is_none__is_named(value: str) -> None:
    with pytest.raises(PortError, match="METRICS_PORT is "):
        services({"METRICS_PORT": value})


def test_migrations__run_where_tables_are_owned() -> None:
    assert [service.name for service in services({}) if service.migration] == ["edge-limiter", "metrics", "analyst"]


def test_sources__exist() -> None:
    assert all(folder.is_dir() for service in services({}) for folder in service.sources)
