"""Errors of settings name the setting but not its value."""

import re
from pathlib import Path

import pytest

from common.runtime.settings import SettingsError, load
from metrics.settings import MetricsSettings

REQUIRED = {"DATABASE_URL": "postgresql://sluice:secret@localhost:5432/sluice"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:9093/hook", "https://alerts.example/v2?token=abc"])
def test_webhook__is_a_web_address(url: str) -> None:
    assert load(MetricsSettings, {**REQUIRED, "METRICS_WEBHOOK_URL": url}).metrics_webhook_url.get_secret_value() == url


@pytest.mark.parametrize("url", ["example.org/secret", "ftp://secret", "http://", "http://secret:x", "https://[secret"])
def test_webhook_that_is_none__is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="METRICS_WEBHOOK_URL") as caught:
        load(MetricsSettings, {**REQUIRED, "METRICS_WEBHOOK_URL": url})
    assert "secret" not in str(caught.value)


def test_connections_to_postgres__are_those_that_read_the_consumers_and_upkeep() -> None:
    chosen = {"METRICS_CONNECTIONS": "5", "METRICS_CONSUMERS": "3"}
    assert load(MetricsSettings, {**REQUIRED, **chosen}).postgres_connections() == 9


def test_partitions_ahead__are_so_many_that_their_alert_is_silent() -> None:
    rules = (Path(__file__).parents[3] / "deploy/compose/observability/alerts.yml").read_text()
    fewest = int(re.findall(r"sluice_metrics_partitions_ahead\) < (\d+)", rules)[0])
    with pytest.raises(SettingsError, match="METRICS_PARTITIONS_AHEAD_DAYS is not valid"):
        load(MetricsSettings, {**REQUIRED, "METRICS_PARTITIONS_AHEAD_DAYS": str(fewest - 1)})
    assert load(MetricsSettings, {**REQUIRED, "METRICS_PARTITIONS_AHEAD_DAYS": str(fewest)})


def test_claim_idle__must_exceed_the_longest_write() -> None:
    with pytest.raises(SettingsError, match="METRICS_CLAIM_IDLE_S must be more than METRICS_INGEST_TIMEOUT_S"):
        load(MetricsSettings, {**REQUIRED, "METRICS_CLAIM_IDLE_S": "10", "METRICS_INGEST_TIMEOUT_S": "10"})
