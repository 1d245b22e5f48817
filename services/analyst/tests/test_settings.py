import pytest

from analyst.settings import AnalystSettings
from common.runtime.settings import SettingsError, load


def test_defaults__are_the_designs() -> None:
    settings = load(AnalystSettings, {})
    assert settings.gemini_api_key is None
    assert settings.gemini_model == "gemini-2.5-flash-lite"
    assert (settings.gemini_rate_limit, settings.gemini_cache_ttl, settings.gemini_sdk) == (10, 300, "genai")
    assert settings.metrics_url() == "http://127.0.0.1:8002"
    assert (settings.listen().port, settings.listen().ops_port) == (8003, 9003)


def test_port_base__moves_the_metrics_service_too() -> None:
    settings = load(AnalystSettings, {"SLUICE_PORT_BASE": "18000"})
    assert settings.metrics_url() == "http://127.0.0.1:18002"


def test_metrics_url__may_end_in_a_slash() -> None:
    settings = load(AnalystSettings, {"ANALYST_METRICS_URL": "http://metrics:8002/"})
    assert settings.metrics_url() == "http://metrics:8002"


def test_key__never_appears_in_text() -> None:
    settings = load(AnalystSettings, {"GEMINI_API_KEY": "secret-key", "DATABASE_URL": "postgresql://a:secret-key@b/c"})
    assert "secret-key" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEMINI_CACHE_TTL", "0"),
        ("GEMINI_RATE_LIMIT", "none"),
        ("GEMINI_SDK", "openai"),
        ("GEMINI_MODLE", "typo"),
        ("GEMINI_API_KEY", "two\nlines"),
        ("GEMINI_API_KEY", "a space"),
        ("GEMINI_API_KEY", "clé"),
        ("ANALYST_LEASE_S", "0"),
        ("ANALYST_AI_TIMEOUT_S", "56"),
        ("ANALYST_ATTEMPT_TIMEOUT_S", "46"),
        ("DATABASE_URL", "mysql://localhost/analyst"),
        ("ANALYST_METRICS_URL", "metrics:8002"),
        ("ANALYST_METRICS_URL", "http://"),
        ("ANALYST_METRICS_URL", "http://metrics:99999"),
        ("ANALYST_PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_wrong_setting__is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as raised:
        load(AnalystSettings, {name: value})
    assert "\n" not in str(raised.value)


def test_connections_to_postgres__are_two_or_none_without_it() -> None:
    assert load(AnalystSettings, {"DATABASE_URL": "postgresql://u:p@h/d"}).postgres_connections() == 2
    assert load(AnalystSettings, {}).postgres_connections() == 0
