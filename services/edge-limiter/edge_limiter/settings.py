"""The edge's environment variables and their bounds. No other module reads the environment."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.runtime.loopback import is_loopback
from common.runtime.settings import (
    Port,
    PostgresSettings,
    RedisSettings,
    Seconds,
    Settings,
    is_web_address,
)
from common.service import Listen
from edge_limiter.ratelimit.identity import parse_network
from edge_limiter.ratelimit.policy import Policy, PolicyError

Limit = Annotated[int, Field(ge=1)]
WindowS = Annotated[int, Field(ge=1, le=86_400)]

LIMITER_CONNECTIONS: Final = 1
BACKGROUND_CONNECTIONS: Final = 2
SHORTEST_PUBLIC_TOKEN: Final = 16
ADMIN_POLICY: Final = "admin"
_POLICIES: Final = {
    "predict": "edge_rate",
    "analyze": "edge_analyze_rate",
    "metrics": "edge_metrics_rate",
    ADMIN_POLICY: "edge_admin_rate",
}
"""The built-in policies, and the prefix of their two settings."""


def _cidrs(value: str) -> str:
    for cidr in split(value):
        parse_network(cidr)
    return value


def _origin(value: str) -> str:
    origin = value.rstrip("/")
    if value and not (is_web_address(value) and origin.count("/") == 2 and not set("?#@") & set(value)):
        raise ValueError("it must look like http://host:port, without a path")
    return origin


Origin = Annotated[str, AfterValidator(_origin)]


def split(value: str) -> list[str]:
    """Return the items of a comma-separated list."""
    return [item.strip() for item in value.split(",") if item.strip()]


class EdgeSettings(Settings, PostgresSettings, RedisSettings):
    """See .env.example for one line on each.

    Of the variables that begin with `EVENTS_` the edge reads one. The others may be in its environment, because the
    services often share one.
    """

    prefixes = ("SLUICE_", "EDGE_")

    edge_host: str = "127.0.0.1"
    edge_port: Port | None = None
    edge_ops_port: Port | None = None
    edge_upstream_inference: Origin = ""
    edge_upstream_metrics: Origin = ""
    edge_upstream_analyst: Origin = ""

    edge_rate_limit: Limit = 60
    edge_rate_window_s: WindowS = 60
    edge_analyze_rate_limit: Limit = 30
    edge_analyze_rate_window_s: WindowS = 60
    edge_metrics_rate_limit: Limit = 120
    edge_metrics_rate_window_s: WindowS = 60
    edge_admin_rate_limit: Limit = 10
    edge_admin_rate_window_s: WindowS = 60
    edge_policy_file: str = ""
    edge_on_store_error: Literal["local", "open", "closed"] = "local"
    edge_replicas: Annotated[int, Field(ge=1, le=1_000)] = 1
    edge_limit_timeout_ms: Annotated[int, Field(ge=100, le=10_000)] = 1_000
    edge_limit_durable: bool = False

    edge_trusted_proxies: Annotated[str, AfterValidator(_cidrs)] = ""
    events_hash_key: SecretStr = SecretStr("")
    edge_admin_token: SecretStr = SecretStr("")

    edge_keepalive_s: Annotated[float, Field(ge=15, le=3_600)] = 75.0
    edge_body_memory_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 128 << 20
    edge_timeout_s: Seconds = 10.0
    edge_analyze_timeout_s: Seconds = 60.0
    edge_max_timeout_s: Seconds = 120.0
    edge_upstream_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_024

    @model_validator(mode="after")
    def _limits_are_exact(self) -> Self:
        for name, prefix in _POLICIES.items():
            try:
                self._policy(name)
            except PolicyError as error:
                variables = f"{prefix.upper()}_LIMIT and {prefix.upper()}_WINDOW_S"
                raise ValueError(f"{variables}: {error}") from error
        return self

    @model_validator(mode="after")
    def _others_may_reach_it(self) -> Self:
        if self.is_local:
            return self
        if 0 < len(self.edge_admin_token.get_secret_value()) < SHORTEST_PUBLIC_TOKEN:
            raise ValueError(
                f"EDGE_ADMIN_TOKEN needs at least {SHORTEST_PUBLIC_TOKEN} characters if EDGE_HOST is not loopback or "
                "EDGE_TRUSTED_PROXIES is set: use the output of `openssl rand -hex 24`"
            )
        if not self.events_hash_key.get_secret_value():
            raise ValueError(
                "EVENTS_HASH_KEY is not set, so every reader of the limits' rows could recover the clients' addresses: "
                "set it to the output of `openssl rand -hex 24`, the same on every replica"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the edge, directly and without a proxy."""
        return is_loopback(self.edge_host) and not self.edge_trusted_proxies

    def listen(self) -> Listen:
        """Return the ports of service 0."""
        return Listen.at(0, self, self.edge_host, self.edge_port, self.edge_ops_port)

    def postgres_connections(self) -> int:
        return LIMITER_CONNECTIONS + BACKGROUND_CONNECTIONS

    def upstreams(self) -> dict[str, str]:
        """Return the origin of each service, by default on the next three ports of this machine."""
        chosen = {
            "inference": self.edge_upstream_inference,
            "metrics": self.edge_upstream_metrics,
            "analyst": self.edge_upstream_analyst,
        }
        ports = range(self.sluice_port_base + 1, self.sluice_port_base + 4)
        return {
            name: origin or f"http://127.0.0.1:{port}"
            for (name, origin), port in zip(chosen.items(), ports, strict=True)
        }

    def policies(self) -> dict[str, Policy]:
        """Return the built-in policies by name."""
        return {name: self._policy(name) for name in _POLICIES}

    def _policy(self, name: str) -> Policy:
        """While the store is down, wrong tokens are still counted: otherwise an outage would allow any number."""
        limit, window_s = (getattr(self, f"{_POLICIES[name]}_{what}") for what in ("limit", "window_s"))
        return Policy(name, limit, window_s, "local" if name == ADMIN_POLICY else self.edge_on_store_error)
