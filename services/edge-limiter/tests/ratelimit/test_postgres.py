import asyncio
import select
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge_limiter.ratelimit.batcher import Query, QueryResult, StoreUnavailable
from edge_limiter.ratelimit.postgres import DECIDE, LATE_IN_A_ROW, PostgresLog, _jittered_s, columns
from launcher.postgres import Postgres
from launcher.testing import migrate

LIMIT, WINDOW_S = 7, 10
WINDOW_US = WINDOW_S * 1_000_000
WRITERS = 4

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def open_log(dsn: str, *, timeout_s: float = 20.0) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(dsn, durable=False, timeout_s=timeout_s)
    task = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(20):
            await log.wait_up()
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])


async def use_test_clock(database: Connection) -> Callable[[int], Awaitable[None]]:
    """Replace the database's clock by a sequence, which all transactions see at once."""
    await database.execute("CREATE SEQUENCE edge.test_clock")
    await database.execute(
        "CREATE OR REPLACE FUNCTION edge.now_us() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS "
        "$$ SELECT last_value FROM edge.test_clock $$"
    )

    async def set_clock(now_us: int) -> None:
        await database.execute("SELECT setval('edge.test_clock', $1)", now_us)

    return set_clock


class Oracle:
    """Every admission at the time of its row, which is the clock's and never decreases."""

    def __init__(self) -> None:
        self._at: dict[bytes, int] = defaultdict(int)
        self._admissions: dict[bytes, list[tuple[int, int]]] = defaultdict(list)

    def live(self, key: bytes, now_us: int) -> int:
        at = max(self._at[key], now_us)
        return sum(units for time, units in self._admissions[key] if time > at - WINDOW_US)

    def check_round(self, now_us: int, queries: list[Query], results: list[QueryResult]) -> None:
        before = {query.key: self.live(query.key, now_us) for query in queries}
        for query, result in zip(queries, results, strict=True):
            self._at[query.key] = max(self._at[query.key], now_us)
            self._admissions[query.key].append((self._at[query.key], result.admitted * query.cost))
        for query, result in zip(queries, results, strict=True):
            live = self.live(query.key, now_us)
            assert live <= LIMIT
            assert 0 <= result.admitted <= query.requests
            if result.admitted < query.requests:
                assert live + query.cost > LIMIT, "refused although it fits"
        for key, already in before.items():
            of_key = [query for query in queries if query.key == key]
            if all(query.cost == 1 for query in of_key):
                wanted = sum(query.requests for query in of_key)
                assert self.live(key, now_us) == min(LIMIT, already + wanted)

    def check_every_window(self) -> None:
        for admissions in self._admissions.values():
            for end, _ in admissions:
                assert sum(units for time, units in admissions if end - WINDOW_US < time <= end) <= LIMIT


BATCHES = st.lists(
    st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 4), st.sampled_from([1, 1, 1, 2, 5])), max_size=4),
    min_size=WRITERS,
    max_size=WRITERS,
)
ROUNDS = st.lists(st.tuples(st.integers(-3_000_000, 8_000_000), BATCHES), min_size=1, max_size=12)


async def _waits_for_a_lock(database: Connection) -> None:
    """Until somebody does."""
    async with asyncio.timeout(60):
        while not await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.001)


async def test_new_key__is_stamped_behind_the_locks_that_its_statement_waits_for(
    edge_database: str, database: Connection
) -> None:
    async with open_log(edge_database) as log:
        await decide(log, 1, key=b"a")
        async with database.transaction():
            await database.execute("SELECT 1 FROM edge.admissions WHERE key = $1 FOR UPDATE", b"a")
            both = [Query(b"a", 1, 1, LIMIT, WINDOW_S), Query(b"b", 1, 1, LIMIT, WINDOW_S)]
            waiting = asyncio.create_task(log.decide(both))
            await _waits_for_a_lock(database)
            released_us = await database.fetchval("SELECT edge.now_us()")
        await waiting
    stamps = await database.fetchval("SELECT log_us FROM edge.admissions WHERE key = $1", b"b")
    assert stamps[0] >= released_us


async def test_several_writers_and_a_moving_clock__never_exceed_the_limit_nor_refuse_what_fits(
    edge_database: str, database: Connection
) -> None:
    set_clock = await use_test_clock(database)
    async with AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(open_log(edge_database)) for _ in range(WRITERS)]

        async def play(rounds: list[tuple[int, list[dict[int, tuple[int, int]]]]]) -> None:
            prefix, oracle, now_us = uuid.uuid4().bytes, Oracle(), 1_000_000_000
            for advance_us, batches in rounds:
                now_us += advance_us
                await set_clock(now_us)
                sent = [
                    [Query(prefix + b"%d" % k, n, cost, LIMIT, WINDOW_S) for k, (n, cost) in batch.items()]
                    for batch in batches
                ]
                answers = await asyncio.gather(*(log.decide(queries) for log, queries in zip(logs, sent, strict=True)))
                oracle.check_round(now_us, list(chain(*sent)), list(chain(*answers)))
            oracle.check_every_window()

        loop = asyncio.get_running_loop()

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(ROUNDS)
        def examples(rounds: list[tuple[int, list[dict[int, tuple[int, int]]]]]) -> None:
            asyncio.run_coroutine_threadsafe(play(rounds), loop).result(60)

        await asyncio.to_thread(examples)


async def decide(
    log: PostgresLog, requests: int, *, cost: int = 1, limit: int = LIMIT, key: bytes = b"k"
) -> QueryResult:
    (result,) = await log.decide([Query(key, requests, cost, limit, WINDOW_S)])
    return result


async def test_refusal__tells_when_such_a_request_fits(edge_database: str, database: Connection) -> None:
    set_clock = await use_test_clock(database)
    async with open_log(edge_database) as log:
        for second in (100, 101, 102):
            await set_clock(second * 1_000_000)
            await decide(log, 1, cost=2)
        assert await decide(log, 1) == QueryResult(1, 0, 8.0)
        assert await decide(log, 1) == QueryResult(0, 0, 8.0)
        assert await decide(log, 1, cost=3) == QueryResult(0, 0, 9.0)
        await set_clock(111_000_000)
        assert (await decide(log, 1, cost=3)).admitted == 1


async def test_lowered_limit__refuses_until_enough_charges_have_expired(
    edge_database: str, database: Connection
) -> None:
    set_clock = await use_test_clock(database)
    async with open_log(edge_database) as log:
        for second in range(100, 106):
            await set_clock(second * 1_000_000)
            await decide(log, 1)
        assert await decide(log, 1, limit=2) == QueryResult(0, 0, 9.0)
        await set_clock(114_000_000)
        assert await decide(log, 1, limit=2) == QueryResult(1, 0, 1.0)


@pytest.mark.parametrize(("durable", "mode"), [(False, "off"), (True, "on")])
async def test_commit_mode__is_set_for_the_transaction_alone(database: Connection, durable: bool, mode: str) -> None:
    before = await database.fetchval("SHOW synchronous_commit")
    async with database.transaction():
        queries = columns([Query(b"k", 1, 1, LIMIT, WINDOW_S)])
        await database.fetch(DECIDE, *queries, "on" if durable else "off")
        assert await database.fetchval("SHOW synchronous_commit") == mode
    assert await database.fetchval("SHOW synchronous_commit") == before


async def _until_down(log: PostgresLog) -> None:
    async with asyncio.timeout(60):
        while log.is_up:
            await asyncio.sleep(0.001)


async def test_decision_behind_a_lock__waits_and_keeps_the_connection(edge_database: str, database: Connection) -> None:
    async with open_log(edge_database, timeout_s=0.5) as log:
        async with database.transaction():
            await database.execute("LOCK TABLE edge.admissions")
            waiting = asyncio.create_task(decide(log, 1))
            await database.execute("SELECT pg_sleep(0.7)")
        assert (await waiting).admitted == 1
        assert log.is_up


async def test_hung_store__is_given_up_after_three_late_decisions_and_recovers(
    edge_database: str, database: Connection
) -> None:
    timeout_s = 0.2
    with capture_logs() as logs:
        async with open_log(edge_database, timeout_s=timeout_s) as log:
            async with database.transaction():
                await database.execute("LOCK TABLE edge.admissions")
                started_s = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await decide(log, 1)
                assert time.monotonic() - started_s >= LATE_IN_A_ROW * timeout_s - 0.01
                assert not log.is_up
            async with asyncio.timeout(20):
                await log.wait_up()
            assert (await decide(log, 1)).admitted == 1
    assert [entry["event"] for entry in logs] == ["rate limiter degraded", "rate limiter exact again"]


async def test_store_that_is_late_again_after_recovery__is_given_up_after_one_late_decision(
    edge_database: str, database: Connection
) -> None:
    timeout_s = 0.2
    async with open_log(edge_database, timeout_s=timeout_s) as log:
        await decide(log, 1)
        durations_s = []
        for _ in range(2):
            async with database.transaction():
                await database.execute("SELECT 1 FROM edge.admissions FOR UPDATE")  # the probe passes
                started_s = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await decide(log, 1)
                durations_s.append(time.monotonic() - started_s)
                async with asyncio.timeout(20):
                    await log.wait_up()
        assert durations_s[1] < LATE_IN_A_ROW * timeout_s - 0.01 < durations_s[0] + 0.01


async def test_answer_that_lay_unread_while_the_loop_stalled__keeps_the_connection(edge_database: str) -> None:
    async with open_log(edge_database, timeout_s=0.2) as log:
        transport = log._connection._transport  # type: ignore[union-attr]  # asyncpg has no accessor for its socket
        answer = transport.get_extra_info("socket")
        deciding = asyncio.create_task(decide(log, 1))
        await asyncio.sleep(0)
        assert select.select([answer], [], [], 60)[0]
        time.sleep(1.0)  # noqa: ASYNC251  # the stall: five times the limit
        assert (await deciding).admitted == 1
        assert log.is_up


async def test_answer_in_time__leaves_no_timer(edge_database: str) -> None:
    async with open_log(edge_database) as log:
        await decide(log, 1)
        assert log._timer.cancelled()


def test_waits_between_connections__double_to_a_second_and_begin_with_none() -> None:
    assert _jittered_s(1) == 0.0
    for failures in range(2, 20):
        longest_s = min(1.0, 0.05 * 2**failures)
        assert longest_s / 2 <= _jittered_s(failures) <= longest_s


async def test_killed_connection__is_noticed_without_a_request_and_reopened(
    edge_database: str, database: Connection
) -> None:
    with capture_logs() as logs:
        async with open_log(edge_database) as log:
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'edge-limiter' AND datname = current_database()"
            )
            await _until_down(log)
            async with asyncio.timeout(20):
                await log.wait_up()
    assert [entry["event"] for entry in logs] == ["rate limiter degraded", "rate limiter exact again"]


async def test_killed_connection__opens_the_breaker_at_once_during_a_statement(
    edge_database: str, database: Connection
) -> None:
    async with open_log(edge_database) as log, database.transaction():
        await database.execute("LOCK TABLE edge.admissions")
        deciding = asyncio.create_task(decide(log, 1))
        await _waits_for_a_lock(database)
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'edge-limiter' AND datname = current_database()"
        )
        async with asyncio.timeout(10):  # half of the time that the log would wait for one late decision
            with pytest.raises(StoreUnavailable):
                await deciding
        assert not log.is_up


async def test_missing_tables__are_waited_for(database_url: str) -> None:
    log = PostgresLog(database_url, durable=False)
    with capture_logs() as logs:
        task = asyncio.create_task(log.run())
        async with asyncio.timeout(20):
            while not logs:
                await asyncio.sleep(0.01)
    assert logs[0]["reason"] == "UndefinedTableError"
    with pytest.raises(StoreUnavailable):
        await decide(log, 1)
    await asyncio.to_thread(migrate, "edge_limiter", database_url)
    async with asyncio.timeout(20):
        await log.wait_up()
    task.cancel()
    await asyncio.wait([task])


async def test_restarted_server__forgets_no_charge(own_postgres: Callable[[], Postgres]) -> None:
    server = own_postgres()
    migrate("edge_limiter", server.url())
    async with open_log(server.url()) as log:
        assert (await log.decide([Query(b"k", LIMIT, 1, LIMIT, 600)]))[0].admitted == LIMIT
        await asyncio.to_thread(server.stop)
        await _until_down(log)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            await log.wait_up()
        assert (await log.decide([Query(b"k", 1, 1, LIMIT, 600)]))[0].admitted == 0
