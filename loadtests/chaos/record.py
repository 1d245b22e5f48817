"""Compares responses with PostgreSQL: each answered text is stored exactly once, and no rejected one is."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis

from chaos.answers import Answer
from chaos.system.stack import Stack
from common.contracts.events import DEAD_LETTERS, EVENT_FIELD, STREAM

SETTLE_S: Final = 60.0
UNCERTAIN: Final = (None, 500, 502, 503, 504)  # the response was lost after journalling, or never made
_ROWS: Final = (
    "SELECT request_id, count(*), count(DISTINCT event_id), sum((outcome = 'ok')::int) FROM prediction GROUP BY 1"
)
_TWICE: Final = "SELECT count(*) - count(DISTINCT event_id) FROM prediction"
_ROLLED_UP: Final = "SELECT coalesce(sum(n), 0)::bigint FROM rollup WHERE width_s = 60 AND outcome = 'ok'"
GROUP: Final = "metrics"


async def stored_twice(stack: Stack) -> int | None:
    """Return events stored more than once; None while PostgreSQL is unavailable."""
    try:
        connection = await stack.database()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    try:
        return int(await connection.fetchval(_TWICE))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        connection.terminate()


async def settled(stack: Stack, answers: Iterable[Answer]) -> tuple[list[str], dict[str, int]]:
    """Wait until all events are stored or SETTLE_S has passed. Returns errors of the record and its figures."""
    sent = {answer.id: answer for answer in answers if answer.cost}
    deadline_s = time.time() + SETTLE_S
    while True:
        rows = await _rows(stack)
        missing = [a for a in sent.values() if a.status == 200 and rows.get(a.id, (0,))[0] < a.cost]
        if not missing or time.time() > deadline_s:
            break
        await asyncio.sleep(0.5)
    wrong = [f"{answer.path} {answer.id} was answered with 200 and is not in PostgreSQL" for answer in missing]
    wrong += _surplus(sent, rows)
    figures = Counter(
        answered=sum(answer.cost for answer in sent.values() if answer.status == 200),
        stored=sum(row[0] for row in rows.values()),
    )
    return wrong + await _sums(stack, rows), dict(figures)


async def _rows(stack: Stack) -> dict[str, tuple[int, int, int]]:
    connection = await stack.database()
    try:
        return {row[0]: (row[1], row[2], row[3]) for row in await connection.fetch(_ROWS)}
    finally:
        connection.terminate()


def _surplus(sent: dict[str, Answer], rows: dict[str, tuple[int, int, int]]) -> list[str]:
    """Return rows without a request, duplicates, and rows of rejected requests."""
    wrong = []
    for request_id, (count, distinct, _) in rows.items():
        answer = sent.get(request_id)
        if answer is None:
            wrong.append(f"PostgreSQL holds {request_id}, which was never sent")
        elif count > answer.cost or distinct < count:
            wrong.append(f"{answer.path} {request_id} is in PostgreSQL {count} times for {answer.cost} texts")
        elif answer.status != 200 and answer.status not in UNCERTAIN:
            wrong.append(f"{answer.path} {request_id} was refused with {answer.status} and is in PostgreSQL")
    return wrong


async def _sums(stack: Stack, rows: dict[str, tuple[int, int, int]]) -> list[str]:
    """Return differences between rollups and rows, and dead letters."""
    connection = await stack.database()
    try:
        rolled_up = int(await connection.fetchval(_ROLLED_UP))
    finally:
        connection.terminate()
    ok = sum(row[2] for row in rows.values())
    wrong = [] if rolled_up == ok else [f"the rollups count {rolled_up} predictions, the rows are {ok}"]
    async with stack.redis() as redis:
        dead = await redis.xlen(DEAD_LETTERS)
    return [*wrong, f"{dead} dead letters"] if dead else wrong


async def drop_one_event(stack: Stack) -> str:
    """Break the promise on purpose: delete one prediction from the stream before metrics has read it."""
    stack.pause("metrics")
    try:
        async with stack.redis() as redis, asyncio.timeout(30):
            while not (dropped := await _drop(redis)):  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.1)
    finally:
        stack.resume("metrics")
    return dropped


async def _drop(redis: Redis) -> str:
    groups: Any = await redis.xinfo_groups(STREAM)
    read = next(group["last-delivered-id"] for group in groups if group["name"] == GROUP)
    unread: Any = await redis.xrange(STREAM, min=f"({read}")
    for entry_id, fields in unread:
        event = json.loads(fields[EVENT_FIELD])
        if event["kind"] == "prediction":
            await redis.xdel(STREAM, entry_id)
            return str(event["request_id"])
    return ""
