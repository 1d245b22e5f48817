"""The Redis client: one place for its address, its time limits, and no hidden retries."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.settings import RedisSettings

REDIS_ERRORS = (RedisError, OSError)
"""What a Redis that is down, slow or restarting raises; TimeoutError is an OSError."""


def create_client(settings: RedisSettings, *, timeout_s: float | None = None) -> Redis:
    """A lazy client: it connects on first use, so a service starts with Redis absent.

    The library's own retries are off (they made one GET take 8 s against a hung server): each caller decides.
    `timeout_s` overrides the settings' for callers that block, such as a stream reader.
    """
    limit_s = timeout_s or settings.redis_timeout_s
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_db,
        username=settings.redis_username or None,
        password=settings.redis_password.get_secret_value() or None,
        ssl=settings.redis_tls,
        socket_timeout=limit_s,
        socket_connect_timeout=min(limit_s, settings.redis_timeout_s),
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        protocol=3,
        max_connections=64,
    )
