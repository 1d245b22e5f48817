"""The procedures of docs/operations.md, run as documented: backup, restore, and an upgrade while serving."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp
from compose import documented
from compose.load import Load, causes, unrecorded
from compose.stack import ROOT, SERVICES, Stack, run


async def predict(stack: Stack, times: int) -> None:
    async with aiohttp.ClientSession(stack.urls[0], headers={"X-Forwarded-For": "198.51.100.120"}) as session:
        for _ in range(times):
            async with session.post("/predict", json={"text": "worth keeping"}) as response:
                assert response.status == 200


async def stored(stack: Stack, at_least: int) -> int:
    """Wait for this many stored predictions, and return their number."""
    async with asyncio.timeout(20):
        while (count := int(stack.sql("SELECT count(*) FROM metrics.prediction"))) < at_least:
            await asyncio.sleep(0.2)
    return count


async def test_restored_backup__contains_every_prediction_once(stack: Stack, tmp_path: Path) -> None:
    dump, restore = documented.blocks("Backup and restore")
    before = int(stack.sql("SELECT count(*) FROM metrics.prediction"))
    await predict(stack, 20)
    await stored(stack, before + 20)
    await asyncio.to_thread(stack.shell, dump, tmp_path)
    await predict(stack, 10)
    await stored(stack, before + 30)
    *stop_and_restore, start = restore.splitlines()
    await asyncio.to_thread(stack.shell, "\n".join(stop_and_restore), tmp_path)
    assert int(stack.sql("SELECT count(*) FROM metrics.prediction")) == before + 20
    await asyncio.to_thread(stack.shell, start, tmp_path)
    await predict(stack, 1)
    await stored(stack, before + 21)
    assert stack.sql("SELECT count(*) - count(DISTINCT event_id) FROM metrics.prediction") == "0"


def test_database__is_closed_to_other_roles_after_a_restore(stack: Stack) -> None:
    assert stack.sql("SELECT has_database_privilege('public', 'sluice', 'connect')") == "f"
    assert stack.sql("SELECT has_database_privilege('sluice', 'sluice', 'connect')") == "t"


def test_password_file_of_pgadmin__opens_the_database(stack: Stack) -> None:
    passfile = "umask 077; cat >/tmp/passfile; PGPASSFILE=/tmp/passfile"
    ask = f"{passfile} psql -Xw -h postgres -U sluice -d sluice -Atc 'SELECT current_user'"
    (postgres,) = stack.containers("postgres")
    command = f'docker exec --interactive {postgres} sh -c "{ask}" <{stack.secrets}/pgadmin-passfile'
    assert run("sh", "-c", command).strip() == "sluice"


async def test_upgrade__fails_no_request(stack: Stack, tmp_path: Path, say: Callable[[str], None]) -> None:
    _, migrations, others, edge = documented.blocks("Upgrade while serving")
    run("make", "images", "TAG=next", "VERSION=next", environment={"SECRETS": str(stack.secrets)}, folder=ROOT)
    stack.tag = "next"
    old = {container for name in SERVICES for container in stack.containers(name)}
    load = Load(stack.urls, reads=True)
    running = asyncio.create_task(load.run())
    await load.answered(50)
    await asyncio.to_thread(stack.sql, "ALTER TABLE metrics.prediction ADD COLUMN added_by_a_later_release text")
    await asyncio.to_thread(stack.shell, migrations, tmp_path)
    await asyncio.to_thread(stack.shell, others, tmp_path)
    await load.answered(50)
    await replace_edge(stack, edge, load, old)
    await load.answered(50)
    load.stop()
    await running
    say(f"upgrade under load: {dict(load.statuses())}, reads {dict(load.read_outcomes)}")
    assert load.statuses().keys() == load.read_outcomes.keys() == {200}, causes(stack, load)
    assert await unrecorded(stack, load) == set()
    new = [container for name in SERVICES for container in stack.containers(name)]
    assert len(new) == len(SERVICES) and not old & set(new)
    assert {stack.inspect(container)["Config"]["Image"].rpartition(":")[2] for container in new} == {"next"}
    await asyncio.to_thread(stack.sql, "ALTER TABLE metrics.prediction DROP COLUMN added_by_a_later_release")


async def replace_edge(stack: Stack, script: str, load: Load, old: set[str]) -> None:
    """Run the documented commands, and move the load to the new edge where they mention the load balancer."""
    begin, _, end = script.replace("8000-8001", stack.published_range).partition("docker compose ps edge")
    wait = "docker compose ps --quiet edge; read -r moved; :"
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", begin + wait + end, env={**os.environ, **stack.environment},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip  # two lines
    assert process.stdin is not None and process.stdout is not None
    both = {(await process.stdout.readline()).strip(), (await process.stdout.readline()).strip()}
    assert len(both) == 2
    load.urls = stack.urls
    await load.answered(50)
    (new,) = set(stack.containers("edge")) - old
    load.urls = [f"http://127.0.0.1:{stack.published(new)}"]
    await load.answered(50)
    process.stdin.write(b"yes\n")
    assert await process.wait() == 0
