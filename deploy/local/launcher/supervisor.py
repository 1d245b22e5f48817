"""The order in which things run: migrations, then services until asked to stop, the front one stopped first."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.keeper import Keeper, Patience, StartError, log_path
from launcher.logs import Console, LogFile, lines
from launcher.processes import tied_to_parent
from launcher.reload import restart_on_change
from launcher.server import Server, StoreError
from launcher.services import Service

_STORE_POLL_S = 0.25


async def migrate(services: Sequence[Service], environment: Mapping[str, str], state: Path, console: Console) -> None:
    """Run all migrations side by side (each has a schema of its own); StartError names those that failed."""
    due = [service for service in services if service.migration]
    codes = await asyncio.gather(*(_migrate(service, environment, state, console) for service in due))
    if failed := [service for service, code in zip(due, codes, strict=True) if code]:
        logs = ", ".join(str(log_path(state, service.name)) for service in failed)
        raise StartError(f"Migrations failed: {', '.join(service.name for service in failed)}; see {logs}")


async def supervise(
    keepers: Sequence[Keeper],
    servers: Sequence[Server],
    console: Console,
    stop: asyncio.Event,
    patience: Patience,
    on_ready: Callable[[], None],
    reloads: bool = False,
) -> None:
    """Keep everything running until `stop` is set, then stop it in order; StartError when a service never starts."""
    failures: list[StartError] = []
    async with asyncio.TaskGroup() as group:
        for keeper in keepers:
            group.create_task(_keep(keeper, failures, stop))
        beside = [group.create_task(_keep_server(server, console, patience)) for server in servers]
        beside.append(group.create_task(_announce(keepers, on_ready)))
        if reloads:
            beside.append(group.create_task(restart_on_change(keepers, console)))
        await stop.wait()
        for task in beside:
            task.cancel()
        console.say("stopping")
        await _stop_in_order(keepers)
    if failures:
        raise failures[0]


async def _migrate(service: Service, environment: Mapping[str, str], state: Path, console: Console) -> int:
    assert service.migration is not None
    process = await asyncio.create_subprocess_exec(
        *service.migration,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=tied_to_parent(signal.SIGTERM),
    )
    assert process.stdout is not None
    log = LogFile(log_path(state, service.name))
    async for line in lines(process.stdout):
        log.write(line)
        console.line(service.name, line)
    log.close()
    return await process.wait()


async def _keep(keeper: Keeper, failures: list[StartError], stop: asyncio.Event) -> None:
    try:
        await keeper.keep()
    except StartError as error:
        failures.append(error)
        stop.set()


async def _keep_server(server: Server, console: Console, patience: Patience) -> None:
    """Start an embedded store again when it ended, ever more slowly until it is ready; the services bridge the gap."""
    was_ready, delay_s = True, patience.first_restart_s
    while True:
        await asyncio.sleep(_STORE_POLL_S)
        if not server.is_running:
            console.say("store ended; starting it again", name=server.name, in_s=delay_s, see=str(server.log))
            was_ready = False
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, patience.longest_restart_s)
            _launch(server, console)
        elif not was_ready and server.is_ready():
            console.say("store ready", name=server.name)
            was_ready, delay_s = True, patience.first_restart_s


def _launch(server: Server, console: Console) -> None:
    try:
        server.launch()
    except (StoreError, OSError) as error:
        console.say("store cannot be started", name=server.name, reason=str(error))


async def _announce(keepers: Sequence[Keeper], on_ready: Callable[[], None]) -> None:
    await asyncio.gather(*(keeper.ready() for keeper in keepers))
    on_ready()


async def _stop_in_order(keepers: Sequence[Keeper]) -> None:
    """The front first, so that nothing new comes in; then all others together."""
    for is_front in (True, False):
        await asyncio.gather(*(keeper.stop() for keeper in keepers if keeper.service.is_front == is_front))
