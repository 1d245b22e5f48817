"""The Redis client: one place for its address, its time limits, and no hidden retries."""

import asyncio
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError, ResponseError

from common.runtime.settings import RedisSettings
from common.stores.names import look_up

REDIS_ERRORS = (RedisError, RedisClusterException, OSError)
"""What a Redis that is down, slow or restarting raises; TimeoutError is an OSError."""


class _ReconnectOnReadOnly(Connection):
    """Is closed after it refused to write, and the next command dials anew: a master that became a replica keeps its
    clients and answers their pings, while its address may long lead to the new one. In a cluster it answers MOVED.
    """

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            await look_up(self.host)
        await super()._connect()  # type: ignore[no-untyped-call]  # the library gives it no types

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError:
            # Once the pool has it back: a pipeline has more answers to read.
            self.mark_for_reconnect()  # type: ignore[no-untyped-call]  # the library gives it no types
            raise


class _ReconnectOnReadOnlyTls(_ReconnectOnReadOnly, SSLConnection):
    pass


class _Cluster(RedisCluster):
    """As lazy as the other client; and mends two faults of the library when many tasks share one that has to find its
    nodes (again): they end each other's connections, and one that is ended while it opens raises AttributeError.
    """

    async def __aenter__(self) -> Self:
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        await self.initialize()  # does nothing when it has looked
        try:
            return await super().execute_command(*args, **kwargs)
        except AttributeError as error:
            raise RedisConnectionError("ended while it was opened") from error


def create_client(settings: RedisSettings, *, timeout_s: float | None = None) -> Redis:
    """A lazy client: it connects on first use, so a service starts with Redis absent.

    The library's own retries are off (they made one GET take 8 s against a hung server): each caller decides.
    `timeout_s` overrides the settings' for callers that block, such as a stream reader.
    The client of a cluster has the methods of the other, and finds the node of each key itself.
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
        return cast(Redis, _Cluster(**options, require_full_coverage=False))
    client = Redis(**options, db=settings.redis_db)
    client.connection_pool.connection_class = _ReconnectOnReadOnlyTls if settings.redis_tls else _ReconnectOnReadOnly
    return client


async def run_id(redis: Redis, key: str) -> str:
    """Changes when another server process holds `key`."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        info = await redis.info("server", target_nodes=redis.get_node_from_key(key))
    else:
        info = await redis.info("server")
    return str(info["run_id"])


async def check_writable(redis: Redis, stream: str) -> None:
    """Raises one of REDIS_ERRORS while the server that holds `stream` takes no writes: it is full, or its disk is.

    The entry has an id that no stream takes, so nothing is ever written, nor made where there is none.
    """
    try:
        await redis.xadd(stream, {"": ""}, id="0-0")
    except ResponseError as error:
        if "must be greater than 0-0" not in str(error):
            raise
