"""The analyst's settings, bounds included; the names are documented in .env.example."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from analyst.report.store import CONNECTIONS
from common.runtime.settings import Port, PostgresUrl, RedisSettings, Seconds, Settings, is_web_address
from common.service import Listen


def _visible_ascii(key: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        raise ValueError("it must be visible ASCII characters: no spaces, no line ends")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_visible_ascii)]


def _web_address(url: str) -> str:
    if not is_web_address(url):
        raise ValueError("it must look like http://host:port")
    return url


HttpUrl = Annotated[str, AfterValidator(_web_address)]


class AnalystSettings(Settings, RedisSettings):
    prefixes: ClassVar[tuple[str, ...]] = ("SLUICE_", "ANALYST_", "GEMINI_")

    analyst_host: str = "127.0.0.1"
    analyst_port: Port | None = None
    analyst_ops_port: Port | None = None
    analyst_metrics_url: HttpUrl | None = None
    analyst_timeout_s: Seconds = 60.0
    analyst_metrics_timeout_s: Seconds = 5.0
    analyst_ai_timeout_s: Seconds = 45.0
    analyst_attempt_timeout_s: Seconds = 15.0
    analyst_redis_timeout_s: Seconds = 0.5
    analyst_lease_s: Annotated[float, Field(ge=0.1, le=300)] = 3.0
    analyst_negative_ttl_s: Annotated[float, Field(ge=0.1, le=300)] = 5.0
    analyst_stale_s: Annotated[float, Field(ge=0, le=604_800)] = 3600.0
    analyst_max_computations: Annotated[int, Field(ge=1, le=10_000)] = 64
    analyst_reports_keep_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    analyst_database_timeout_s: Seconds = 5.0

    database_url: PostgresUrl | None = None

    gemini_api_key: ApiKey | None = None
    gemini_model: Annotated[str, Field(min_length=1, max_length=128)] = "gemini-2.5-flash-lite"
    gemini_rate_limit: Annotated[int, Field(ge=1, le=100_000)] = 10
    gemini_cache_ttl: Annotated[int, Field(ge=1, le=86_400)] = 300
    gemini_endpoint: str = ""
    gemini_sdk: Literal["generativeai", "genai"] = "genai"

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.analyst_metrics_timeout_s + self.analyst_ai_timeout_s >= self.analyst_timeout_s:
            raise ValueError("ANALYST_METRICS_TIMEOUT_S and ANALYST_AI_TIMEOUT_S must fit in ANALYST_TIMEOUT_S")
        if self.analyst_attempt_timeout_s > self.analyst_ai_timeout_s:
            raise ValueError("ANALYST_ATTEMPT_TIMEOUT_S must fit in ANALYST_AI_TIMEOUT_S")
        return self

    def listen(self) -> Listen:
        return Listen.at(3, self, self.analyst_host, self.analyst_port, self.analyst_ops_port)

    def postgres_connections(self) -> int:
        return CONNECTIONS if self.database_url else 0

    def metrics_url(self) -> str:
        return (self.analyst_metrics_url or f"http://127.0.0.1:{self.sluice_port_base + 2}").rstrip("/")
