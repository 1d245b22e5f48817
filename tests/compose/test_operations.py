"""The procedures of docs/operations.md: backup and restore, an upgrade while serving, TLS before the edge."""

import asyncio
from collections.abc import Callable

import aiohttp
from compose.load import Load
from compose.stack import SERVICES, Stack, docker

DUMP = "/tmp/sluice.dump"
# As documented, but through psql: where the image is a local stand-in its pg_restore is version 17, which sets what 16
# doesn't know.
RESTORE = (
    f"pg_restore --file=- {DUMP} | grep -v '^SET transaction_timeout'"
    " | psql -Xq -U postgres -d sluice -v ON_ERROR_STOP=1 >/dev/null"
)


async def predict(stack: Stack, times: int) -> None:
    async with aiohttp.ClientSession(stack.urls[0], headers={"X-Forwarded-For": "198.51.100.120"}) as session:
        for _ in range(times):
            async with session.post("/predict", json={"text": "worth keeping"}) as response:
                assert response.status == 200


async def stored(stack: Stack, at_least: int) -> int:
    """How many predictions are stored, once there are enough."""
    async with asyncio.timeout(20):
        while (count := int(stack.sql("SELECT count(*) FROM metrics.prediction"))) < at_least:
            await asyncio.sleep(0.2)
    return count


async def test_a_restored_backup__holds_every_prediction_once(stack: Stack) -> None:
    (postgres,) = stack.containers("postgres")
    before = int(stack.sql("SELECT count(*) FROM metrics.prediction"))
    await predict(stack, 20)
    await stored(stack, before + 20)
    docker("exec", postgres, "pg_dump", "-U", "postgres", "-d", "sluice", "--format=custom", f"--file={DUMP}")
    await predict(stack, 10)
    await stored(stack, before + 30)

    stack.compose("stop", *SERVICES)
    stack.sql("DROP DATABASE sluice WITH (FORCE)", "postgres")
    stack.sql("CREATE DATABASE sluice OWNER sluice", "postgres")
    docker("exec", postgres, "sh", "-c", RESTORE)
    assert int(stack.sql("SELECT count(*) FROM metrics.prediction")) == before + 20
    stack.compose("up", "--detach", "--wait", "--no-recreate")
    await predict(stack, 1)
    await stored(stack, before + 21)
    assert stack.sql("SELECT count(*) - count(DISTINCT event_id) FROM metrics.prediction") == "0"


async def test_an_expanding_migration__is_not_noticed_by_those_who_serve(
    stack: Stack, say: Callable[[str], None]
) -> None:
    load = Load(stack.urls, reads=True)
    running = asyncio.create_task(load.run())
    await load.answered(50)
    await asyncio.to_thread(stack.sql, "ALTER TABLE metrics.prediction ADD COLUMN added_by_a_later_release text")
    for job in ("migrate-edge", "migrate-metrics", "migrate-analyst"):
        await asyncio.to_thread(stack.compose, "run", "--rm", "--no-deps", job)
    await load.answered(50)
    load.stop()
    await running
    await asyncio.to_thread(stack.sql, "ALTER TABLE metrics.prediction DROP COLUMN added_by_a_later_release")
    say(f"migrations under load: {dict(load.statuses())}, reads {dict(load.read_outcomes)}")
    assert load.statuses().keys() == load.read_outcomes.keys() == {200}
