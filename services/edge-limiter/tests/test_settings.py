import pytest

from common.runtime.settings import SettingsError, load
from edge_limiter.settings import EdgeSettings

MINIMUM = {"DATABASE_URL": "postgresql://u:p@127.0.0.1/db", "EVENTS_HASH_KEY": "key"}


def test_defaults__are_sixty_a_minute_on_loopback() -> None:
    settings = load(EdgeSettings, MINIMUM)
    policy = settings.policies()["predict"]
    assert (policy.limit, policy.window_s, policy.on_store_error) == (60, 60, "local")
    assert (settings.listen().host, settings.listen().port, settings.listen().ops_port) == ("127.0.0.1", 8000, 9000)
    assert settings.upstreams() == {
        "inference": "http://127.0.0.1:8001",
        "metrics": "http://127.0.0.1:8002",
        "analyst": "http://127.0.0.1:8003",
    }


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
def test_admin_policy__counts_wrong_tokens_during_every_outage(mode: str) -> None:
    policies = load(EdgeSettings, {**MINIMUM, "EDGE_ON_STORE_ERROR": mode}).policies()
    assert {name: (policy.limit, policy.on_store_error) for name, policy in policies.items()} == {
        "predict": (60, mode),
        "analyze": (30, mode),
        "metrics": (120, mode),
        "admin": (10, "local"),
    }


def test_keepalive__outlives_the_idle_connections_of_load_balancers() -> None:
    assert load(EdgeSettings, MINIMUM).edge_keepalive_s > 60, "the default of AWS's load balancer"
    assert load(EdgeSettings, {**MINIMUM, "EDGE_KEEPALIVE_S": "620"}).edge_keepalive_s == 620, "for Google's, 600 s"


def test_upstream_of_its_own__is_used() -> None:
    settings = load(EdgeSettings, {**MINIMUM, "EDGE_UPSTREAM_METRICS": "http://metrics:8002/"})
    assert settings.upstreams()["metrics"] == "http://metrics:8002"


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
def test_wrong_variable__stops_the_start_and_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(EdgeSettings, {**MINIMUM, name: value})


@pytest.mark.parametrize(
    "limit", ["EDGE_RATE_LIMIT", "EDGE_ANALYZE_RATE_LIMIT", "EDGE_METRICS_RATE_LIMIT", "EDGE_ADMIN_RATE_LIMIT"]
)
def test_limit_that_cannot_be_kept_exactly__stops_the_start_with_the_cure(limit: str) -> None:
    with pytest.raises(SettingsError, match=f"^{limit} and .* 1000 in 30 s"):
        load(EdgeSettings, {**MINIMUM, limit: "2000"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "edge"])
def test_token_that_others_could_guess__stops_a_public_edge_with_the_cure(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^EDGE_ADMIN_TOKEN needs at least 16 .*`openssl rand") as raised:
        load(EdgeSettings, {**MINIMUM, "EDGE_HOST": host, "EDGE_ADMIN_TOKEN": "fifteen letters"})
    assert "fifteen" not in str(raised.value)


def test_token_that_others_could_guess__stops_an_edge_behind_a_proxy_of_its_machine() -> None:
    chosen = {"EDGE_HOST": "127.0.0.1", "EDGE_TRUSTED_PROXIES": "127.0.0.1", "EDGE_ADMIN_TOKEN": "fifteen letters"}
    with pytest.raises(SettingsError, match=r"^EDGE_ADMIN_TOKEN needs at least 16 .* EDGE_TRUSTED_PROXIES is set"):
        load(EdgeSettings, MINIMUM | chosen)


@pytest.mark.parametrize(
    ("host", "token"), [("127.0.0.1", "s"), ("::1", "s"), ("localhost", "s"), ("0.0.0.0", ""), ("0.0.0.0", "0" * 16)]
)
def test_token__may_be_short_on_loopback_and_missing_anywhere(host: str, token: str) -> None:
    settings = load(EdgeSettings, {**MINIMUM, "EDGE_HOST": host, "EDGE_ADMIN_TOKEN": token})
    assert settings.edge_admin_token.get_secret_value() == token


@pytest.mark.parametrize("others", [{"EDGE_HOST": "0.0.0.0"}, {"EDGE_TRUSTED_PROXIES": "127.0.0.1"}])
def test_edge_that_others_reach__does_not_start_without_the_key_that_hides_their_addresses(
    others: dict[str, str],
) -> None:
    load(EdgeSettings, MINIMUM | others)
    with pytest.raises(SettingsError, match=r"^EVENTS_HASH_KEY is not set"):
        load(EdgeSettings, MINIMUM | others | {"EVENTS_HASH_KEY": ""})


def test_edge_of_this_machine_alone__may_do_without_that_key() -> None:
    assert not load(EdgeSettings, MINIMUM | {"EVENTS_HASH_KEY": ""}).events_hash_key.get_secret_value()


def test_connections_to_postgres__are_the_limiter_and_two_in_the_background() -> None:
    assert load(EdgeSettings, MINIMUM).postgres_connections() == 3


def test_event_settings_of_inference__are_ignored_in_a_shared_environment() -> None:
    load(EdgeSettings, MINIMUM | {"EVENTS_JOURNAL_DIR": "/var/lib/journal", "EVENTS_STORE_TEXT": "true"})
