"""Run one system: stores, migrations, then the services until asked to stop, the front one stopped first."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import stores
from launcher.keeper import (
    PATIENCE,
    Keeper,
    Output,
    Patience,
    StartError,
    end_stranded_services,
    failure,
    log_path,
    spawn,
)
from launcher.logs import Console
from launcher.server import Server, StoreError
from launcher.services import Service, addresses, check_ports, completed, is_given, ports_of
from launcher.state import Running, claim, held, secret_file

_FOLDERS = ("logs", "run", "journal", "tmp")
_STORE_POLL_S = 0.25
_TRY = """curl -s {url}/predict -H 'Content-Type: application/json' -d '{{"text": "A thoughtful, moving film."}}'"""


@dataclass(frozen=True, slots=True)
class System:
    """The services to run (only the stores if empty), the user's environment, and the folder that holds all state."""

    services: tuple[Service, ...]
    user: Mapping[str, str]
    state: Path
    patience: Patience = PATIENCE

    @property
    def url(self) -> str:
        return next((service.url for service in self.services if service.is_front), "")


def run(system: System, console: Console, reloads: bool = False) -> None:
    """Run until SIGINT, SIGTERM or (without nohup) SIGHUP; raise the error that prevents the start."""
    started = time.monotonic()
    ops = {service.name: (service.ops_host, service.ops_port) for service in system.services}
    with held(_folder(system.state), Running(os.getpid(), system.url, ops)):
        end_stranded_services(system.services, system.state)
        check_ports(system.services)
        servers = stores.embedded(system.user, system.state, ports_of(system.services))
        with stores.running(servers, console):
            ports = {server.name: server.port for server in servers}
            console.say("stores ready", seconds=round(time.monotonic() - started, 2), **ports)
            asyncio.run(_run(system, servers, console, started, reloads))
    console.say("stopped")


async def _run(system: System, servers: list[Server], console: Console, started: float, reloads: bool) -> None:
    variables = stores.variables(servers)
    defaults = addresses(system.services) | {"EVENTS_JOURNAL_DIR": str(system.state / "journal" / "inference")}
    environment = completed(system.user, variables, system.state, defaults) | {"LOG_FORMAT": "json"}
    keepers = [Keeper(one, environment, system.state, console, system.patience) for one in system.services]
    stop = _stop_on_signals(keepers)
    migrations = asyncio.create_task(_migrate_all(system, environment, console))

    def announce() -> None:
        if system.services:
            _say_ready(system, console, time.monotonic() - started)
        else:
            for name, value in variables.items():
                console.plain(f"export {name}={value}")

    await _supervise(keepers, migrations, servers, console, stop, system.patience, announce, reloads)


def _stop_on_signals(keepers: Sequence[Keeper]) -> asyncio.Event:
    """Return an event that the first signal sets. The second kills the services and this process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            for keeper in keepers:
                keeper.kill()
            os._exit(130)
        stop.set()

    hangup = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


async def _migrate_all(system: System, environment: Mapping[str, str], console: Console) -> None:
    """Run all migrations in parallel (each service has its own schema); StartError if one fails."""
    due = [service for service in system.services if service.migration]
    applied = await asyncio.gather(*(_migrate(service, environment, system.state, console) for service in due))
    if sum(applied):
        console.say(f"{sum(applied)} migrations applied")


async def _migrate(service: Service, environment: Mapping[str, str], state: Path, console: Console) -> int:
    """Return the number of revisions that Alembic applied."""
    assert service.migration is not None
    process = await spawn(service.migration, environment)
    output = Output(service.name, log_path(state, service.name), console)
    applied = await output.copy(process, has="Running upgrade")
    if await process.wait():
        raise StartError(
            failure(f"Migrations of {service.name} failed", output.last_line, log_path(state, service.name))
        )
    return applied


async def _supervise(
    keepers: Sequence[Keeper],
    migrations: asyncio.Task[None],
    servers: Sequence[Server],
    console: Console,
    stop: asyncio.Event,
    patience: Patience,
    on_ready: Callable[[], None],
    reloads: bool,
) -> None:
    """Keep everything running until `stop`, then stop it in order; StartError if a service never starts."""
    failures: list[StartError] = []
    async with asyncio.TaskGroup() as group:
        for keeper in keepers:
            group.create_task(_keep(keeper, migrations, failures, stop))
        background = [group.create_task(_keep_server(server, console, patience)) for server in servers]
        background.append(group.create_task(_announce(keepers, on_ready)))
        if reloads:
            background.append(group.create_task(_restart_on_change(keepers, console)))
        await stop.wait()
        for task in background:
            task.cancel()
        console.say("stopping")
        for is_front in (True, False):  # the front first, so that no new requests arrive
            await asyncio.gather(*(keeper.stop() for keeper in keepers if keeper.service.is_front == is_front))
    if failures:
        raise failures[0]


async def _keep(
    keeper: Keeper, migrations: asyncio.Task[None], failures: list[StartError], stop: asyncio.Event
) -> None:
    """Inference has no tables, so it loads its model while the others wait for the migrations."""
    try:
        if keeper.service.migration:
            await migrations
        await keeper.keep()
    except StartError as error:
        failures.append(error)
        stop.set()


async def _keep_server(server: Server, console: Console, patience: Patience) -> None:
    """Restart an embedded store when it exits, with back-off until it is ready."""
    was_ready, delay_s = True, patience.first_restart_s
    while True:
        await asyncio.sleep(_STORE_POLL_S)
        if not server.is_running:
            console.say("store exited", name=server.name, restart_in_s=delay_s, see=str(server.log))
            was_ready = False
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, patience.longest_restart_s)
            try:
                server.launch()
            except (StoreError, OSError) as error:
                console.say("store cannot be started", name=server.name, reason=str(error))
        elif not was_ready and server.is_ready():
            console.say("store ready", name=server.name)
            was_ready, delay_s = True, patience.first_restart_s


async def _restart_on_change(keepers: Sequence[Keeper], console: Console) -> None:
    """Restart a service when a file below its sources changes."""
    from watchfiles import awatch  # only `dev` needs it

    folders = {folder for keeper in keepers for folder in keeper.service.sources if folder.exists()}
    async for changes in awatch(*folders, watch_filter=_is_source):
        paths = [Path(changed) for _, changed in sorted(changes)]
        for keeper in keepers:
            if mine := [path for path in paths if any(path.is_relative_to(one) for one in keeper.service.sources)]:
                console.say("source changed", name=keeper.service.name, file=mine[0].name)
                keeper.restart()


def _is_source(_change: object, path: str) -> bool:
    return "__pycache__" not in path and not path.endswith(("~", ".swp", ".tmp"))


async def _announce(keepers: Sequence[Keeper], on_ready: Callable[[], None]) -> None:
    await asyncio.gather(*(keeper.ready() for keeper in keepers))
    on_ready()


def _folder(state: Path) -> Path:
    claim(state)
    for name in _FOLDERS:
        (state / name).mkdir(mode=0o700, exist_ok=True)
    return state


def _say_ready(system: System, console: Console, seconds: float) -> None:
    """Print where the system is and a request to try. The admin token itself could end up in a readable log."""
    dashboard = f"{system.url}/dashboard"
    token = "EDGE_ADMIN_TOKEN"
    if not is_given(system.user, token):
        token = str(secret_file(system.state, token))
    console.say("ready", url=system.url, dashboard=dashboard, admin_token_in=token, seconds=round(seconds, 1))
    if console.is_terminal:
        console.plain(
            f"\n  Dashboard    {dashboard}\n  Admin token  make token\n  Logs         make logs\n  Stop         Ctrl-C"
        )
        console.plain("\nTry it:\n")
    console.plain(_TRY.format(url=system.url))
