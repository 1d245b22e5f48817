"""Settings of the metrics service, read from the environment."""

from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.runtime.settings import Port, PostgresSettings, RedisSettings, Seconds, Settings, is_web_address
from common.service import Listen

QUICK_CONNECTIONS: Final = 2
"""The connections out of METRICS_CONNECTIONS for counts, alerts and rules, so that aggregates cannot delay them."""


def _web_address(value: SecretStr) -> SecretStr:
    """Check an empty or http(s) URL. Errors must not contain the value."""
    if value.get_secret_value() and not is_web_address(value.get_secret_value()):
        raise ValueError("it must look like https://host/path")
    return value


class MetricsSettings(Settings, PostgresSettings, RedisSettings):
    """All settings, with bounds. `.env.example` describes each."""

    prefixes: ClassVar[tuple[str, ...]] = ("SLUICE_", "METRICS_")

    metrics_host: str = "127.0.0.1"
    metrics_port: Port | None = None
    metrics_ops_port: Port | None = None
    metrics_request_timeout_s: Seconds = 10.0
    metrics_connections: Annotated[int, Field(ge=QUICK_CONNECTIONS + 1, le=100)] = 8
    metrics_database_timeout_s: Seconds = 5.0

    metrics_consumers: Annotated[int, Field(ge=1, le=16)] = 2
    metrics_batch: Annotated[int, Field(ge=1, le=20_000)] = 5_000
    metrics_ingest_timeout_s: Seconds = 10.0
    metrics_claim_idle_s: Seconds = 15.0
    metrics_dead_letters_max: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000

    metrics_retention_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    metrics_partitions_ahead_days: Annotated[int, Field(ge=2, le=60)] = 7  # with 1, SluicePartitionsMissing would fire
    metrics_maintenance_s: Seconds = 300.0

    metrics_evaluate_s: Annotated[float, Field(ge=1, le=3_600)] = 5.0
    metrics_webhook_url: Annotated[SecretStr, AfterValidator(_web_address)] = SecretStr("")
    metrics_webhook_timeout_s: Seconds = 5.0
    metrics_webhook_token: SecretStr = SecretStr("")
    metrics_webhook_signing_key: SecretStr = SecretStr("")
    metrics_stream_s: Seconds = 2.0
    metrics_stream_clients: Annotated[int, Field(ge=1, le=10_000)] = 100

    @model_validator(mode="after")
    def _claims_after_writes(self) -> Self:
        """Check that no other consumer claims a batch while it is being written."""
        if self.metrics_claim_idle_s <= self.metrics_ingest_timeout_s:
            raise ValueError("METRICS_CLAIM_IDLE_S must be more than METRICS_INGEST_TIMEOUT_S")
        return self

    def writing_connections(self) -> int:
        """Connections for writing: one per consumer, and one for maintenance and alerts."""
        return self.metrics_consumers + 1

    def postgres_connections(self) -> int:
        return self.metrics_connections + self.writing_connections()

    def listen(self) -> Listen:
        """Return the address to listen on: the third port of the services."""
        return Listen.at(2, self, self.metrics_host, self.metrics_port, self.metrics_ops_port)
