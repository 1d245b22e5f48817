"""Names, ports and setting names of the four services."""

import pytest

from launcher.services import SettingError, addresses, check_names, services


def test_ports__start_at_the_base_and_ops_ports_a_thousand_above() -> None:
    found = services({})
    assert [service.name for service in found] == ["edge-limiter", "inference", "metrics", "analyst"]
    assert [service.port for service in found] == [8000, 8001, 8002, 8003]
    assert [service.ops_port for service in found] == [9000, 9001, 9002, 9003]
    assert [service.is_front for service in found] == [True, False, False, False]


def test_port_base__shifts_all_ports_except_explicit_ones() -> None:
    found = services({"SLUICE_PORT_BASE": "18000", "METRICS_PORT": "7000", "ANALYST_OPS_PORT": "7001"})
    assert [service.port for service in found] == [18000, 18001, 7000, 18003]
    assert [service.ops_port for service in found] == [19000, 19001, 19002, 7001]


def test_addresses__contain_the_configured_hosts_and_ports() -> None:
    chosen = {"INFERENCE_PORT": "8501", "METRICS_HOST": "0.0.0.0", "ANALYST_HOST": "::1", "ANALYST_PORT": "8503"}
    assert addresses(services(chosen)) == {
        "EDGE_UPSTREAM_INFERENCE": "http://127.0.0.1:8501",
        "EDGE_UPSTREAM_METRICS": "http://127.0.0.1:8002",
        "ANALYST_METRICS_URL": "http://127.0.0.1:8002",
        "EDGE_UPSTREAM_ANALYST": "http://[::1]:8503",
    }


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:80", "0", "70000", "-1"])
def test_port__out_of_range__is_named(value: str) -> None:
    with pytest.raises(SettingError, match="METRICS_PORT is "):
        services({"METRICS_PORT": value})


def test_migrations__run_for_services_with_tables() -> None:
    assert [service.name for service in services({}) if service.migration] == ["edge-limiter", "metrics", "analyst"]


def test_sources__exist() -> None:
    assert all(folder.is_dir() for service in services({}) for folder in service.sources)


def test_unknown_setting__is_named_with_the_nearest_one() -> None:
    with pytest.raises(SettingError, match=r"^EDGE_RATELIMIT is not a setting\. Did you mean EDGE_RATE_LIMIT\?$"):
        check_names({"EDGE_RATELIMIT": "5"})


def test_known_settings__are_accepted() -> None:
    check_names({"EDGE_RATE_LIMIT": "5", "EDGE_ADMIN_TOKEN_FILE": "/run/token", "EDITOR": "vi", "EDGE_TYPO": ""})
