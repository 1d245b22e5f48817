"""Redis clients with one address, time limits and no hidden retries."""

from typing import Any, Final, Self, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError, ResponseError

from common.runtime.settings import RedisSettings

REDIS_ERRORS: Final = (RedisError, RedisClusterException, OSError)
"""Errors of a Redis server that is down, slow or restarting. TimeoutError is an OSError."""


class _ReconnectOnReadOnly(Connection):
    """Reconnects after the server refused a write, because the address may lead to a new master by then.

    A master that became a replica keeps its clients and answers their pings.
    """

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError:
            # Takes effect when the connection returns to the pool: a pipeline has more responses to read.
            self.mark_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types for it
            raise


class _ReconnectOnReadOnlyTls(_ReconnectOnReadOnly, SSLConnection):
    pass


class _LazyCluster(RedisCluster):
    """Connects at the first command, as `Redis` does, not when it is entered.

    Commands sent while the nodes are being discovered would close each other's connections in redis-py.
    """

    async def __aenter__(self) -> Self:
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        await self.initialize()  # does nothing once the nodes are known
        try:
            return await super().execute_command(*args, **kwargs)
        except AttributeError as error:  # its connection was closed while it was opened
            raise RedisConnectionError("connection closed while opening") from error


def create_client(settings: RedisSettings, *, timeout_s: float | None = None) -> Redis:
    """Return a client that connects at its first command, so that a service starts without Redis.

    redis-py's own retries are off, because one GET took 8 s against a hung server. `timeout_s` replaces
    `redis_timeout_s` for callers that block, such as a stream reader.
    """
    limit_s = timeout_s or settings.redis_timeout_s
    options: dict[str, Any] = {
        "host": settings.redis_host,
        "port": settings.redis_port,
        "username": settings.redis_username or None,
        "password": settings.redis_password.get_secret_value() or None,
        "ssl": settings.redis_tls,
        "ssl_ca_certs": settings.redis_ca_file and str(settings.redis_ca_file),
        "socket_timeout": limit_s,
        "socket_connect_timeout": min(limit_s, settings.redis_timeout_s),
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        "protocol": 3,
        "max_connections": 64,
    }
    if settings.redis_cluster:
        return cast(Redis, _LazyCluster(**options, require_full_coverage=False))
    client = Redis(**options, db=settings.redis_db)
    client.connection_pool.connection_class = _ReconnectOnReadOnlyTls if settings.redis_tls else _ReconnectOnReadOnly
    return client


async def run_id(redis: Redis, key: str) -> str:
    """Return the id of the server process that holds `key`; a restart or a failover changes it."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        info = await redis.info("server", target_nodes=redis.get_node_from_key(key))
    else:
        info = await redis.info("server")
    return str(info["run_id"])


async def check_writable(redis: Redis, stream: str) -> None:
    """Raise one of REDIS_ERRORS if the server that holds `stream` refuses writes, such as when its memory is full.

    Redis rejects the id `0-0`, so nothing is written and no stream is created.
    """
    try:
        await redis.xadd(stream, {"": ""}, id="0-0")
    except ResponseError as error:
        if "must be greater than 0-0" not in str(error):
            raise
