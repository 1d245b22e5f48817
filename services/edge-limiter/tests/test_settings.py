import pytest

from common.runtime.settings import SettingsError, load
from edge_limiter.settings import EdgeSettings

MINIMUM = {"DATABASE_URL": "postgresql://u:p@127.0.0.1/db", "EVENTS_HASH_KEY": "key"}


def test_defaults__are_on_loopback() -> None:
    settings = load(EdgeSettings, MINIMUM)
    assert (settings.listen().host, settings.listen().port, settings.listen().ops_port) == ("127.0.0.1", 8000, 9000)
    assert settings.upstreams() == {
        "inference": "http://127.0.0.1:8001",
        "metrics": "http://127.0.0.1:8002",
        "analyst": "http://127.0.0.1:8003",
    }
    assert settings.edge_keepalive_s > 60, "the default of AWS's load balancer"
    assert settings.postgres_connections() == 3


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
def test_admin_policy__counts_wrong_tokens_during_every_outage(mode: str) -> None:
    policies = load(EdgeSettings, {**MINIMUM, "EDGE_ON_STORE_ERROR": mode}).policies()
    assert {name: (policy.limit, policy.window_s, policy.on_store_error) for name, policy in policies.items()} == {
        "predict": (60, 60, mode),
        "analyze": (30, 60, mode),
        "metrics": (120, 60, mode),
        "admin": (10, 60, "local"),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGE_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("EDGE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("EDGE_UPSTREAM_METRICS", "metrics:8002"),
        ("EDGE_UPSTREAM_METRICS", "http://metrics:8002/base"),
        ("EDGE_UPSTREAM_METRICS", "http://"),
        ("EDGE_UPSTREAM_METRICS", "http://metrics:99999"),
        ("EDGE_UPSTREAM_METRICS", "http://metrics:8002?x"),
        ("EDGE_UPSTREAM_METRICS", "http://user@metrics:8002"),
        ("EDGE_RATE_LIMIT", "0"),
        ("EDGE_KEEPALIVE_S", "3601"),
        ("EDGE_ON_STORE_ERROR", "shut"),
        ("EDGE_RATE", "60"),
    ],
)
def test_wrong_variable__is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(EdgeSettings, {**MINIMUM, name: value})


@pytest.mark.parametrize("name", ["EDGE_RATE", "EDGE_ANALYZE_RATE", "EDGE_METRICS_RATE", "EDGE_ADMIN_RATE"])
def test_limit_that_cannot_be_exact__is_refused_with_the_cure(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}_LIMIT and .* 1000 in 30 s"):
        load(EdgeSettings, {**MINIMUM, f"{name}_LIMIT": "2000"})


PUBLIC = [
    *({"EDGE_HOST": host} for host in ("0.0.0.0", "::", "192.0.2.1", "edge")),
    {"EDGE_HOST": "127.0.0.1", "EDGE_TRUSTED_PROXIES": "127.0.0.1"},
]


@pytest.mark.parametrize("public", PUBLIC)
def test_public_edge__needs_a_long_token_and_a_key_for_addresses(public: dict[str, str]) -> None:
    load(EdgeSettings, MINIMUM | public)
    load(EdgeSettings, MINIMUM | public | {"EDGE_ADMIN_TOKEN": "0" * 16})
    with pytest.raises(SettingsError, match=r"^EDGE_ADMIN_TOKEN needs at least 16 .*`openssl rand") as raised:
        load(EdgeSettings, MINIMUM | public | {"EDGE_ADMIN_TOKEN": "fifteen letters"})
    assert "fifteen" not in str(raised.value)
    with pytest.raises(SettingsError, match=r"^EVENTS_HASH_KEY is not set"):
        load(EdgeSettings, MINIMUM | public | {"EVENTS_HASH_KEY": ""})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_local_edge__may_have_a_short_token_and_no_key(host: str) -> None:
    settings = load(EdgeSettings, MINIMUM | {"EDGE_HOST": host, "EDGE_ADMIN_TOKEN": "s", "EVENTS_HASH_KEY": ""})
    assert settings.edge_admin_token.get_secret_value() == "s"


def test_environment_shared_with_inference__may_hold_its_event_settings() -> None:
    other = {"EVENTS_JOURNAL_DIR": "/var/lib/journal", "EDGE_UPSTREAM_METRICS": "http://metrics:8002/"}
    settings = load(EdgeSettings, MINIMUM | other)
    assert settings.upstreams()["metrics"] == "http://metrics:8002"
