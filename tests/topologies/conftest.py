"""Stores as larger installations run them: PostgreSQL behind PgBouncer, Redis as a cluster. Needs their programs."""

import os
from collections.abc import Callable, Iterator

import pytest
from topologies.pgbouncer import PgBouncer
from topologies.redis_cluster import RedisCluster

from launcher.postgres import Postgres
from launcher.testing import started

collect_ignore_glob = [] if os.environ.get("TOPOLOGY_TESTS") else ["test_*.py"]  # set by `make test-topologies` alone


@pytest.fixture(scope="module")
def pgbouncer(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[PgBouncer]:
    with started(PgBouncer(tmp_path_factory.mktemp("pgbouncer"), free_port(), postgres)) as bouncer:
        yield bouncer


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"), free_port)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
