"""Puts one system together: holds the state folder, starts stores, migrations and services, says where it is."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import environment, stores
from launcher.keeper import PATIENCE, Keeper, Patience, end_stranded_services
from launcher.logs import Console
from launcher.server import Server
from launcher.services import Service, addresses, check_ports, ports_of
from launcher.state import Running, claim, held
from launcher.supervisor import migrate, supervise

_FOLDERS = ("logs", "run", "journal", "tmp")
_TRY = """curl -s {url}/predict -H 'Content-Type: application/json' -d '{{"text": "A thoughtful, moving film."}}'"""


@dataclass(frozen=True, slots=True)
class System:
    """What is to run: the services, the user's environment, and the folder that keeps everything."""

    services: tuple[Service, ...]
    user: Mapping[str, str]
    state: Path
    patience: Patience = PATIENCE

    @property
    def url(self) -> str:
        front = next((service for service in self.services if service.is_front), None)
        return front.url if front else ""


def run(system: System, console: Console, reloads: bool = False) -> None:
    """Run the system until SIGINT, SIGTERM or, but for nohup, SIGHUP; raises what keeps it from starting."""
    started = time.monotonic()
    with held(_folder(system.state), Running(os.getpid(), system.url)):
        is_first = not environment.secret_file(system.state, "EDGE_ADMIN_TOKEN").exists()
        end_stranded_services(system.services, system.state, system.patience)
        check_ports(system.services)
        servers = stores.embedded(system.user, system.state, ports_of(system.services))
        with stores.running(servers, console):
            _say_stores(servers, console, started)
            filled = _environment(system, servers, console)

            def announce() -> None:
                _say_ready(system, filled, console, time.monotonic() - started, is_first)

            asyncio.run(_run(system, servers, filled, console, announce, reloads))
    console.say("stopped")


def run_stores(system: System, console: Console) -> None:
    """Run the embedded stores alone, and print what leads to them."""
    started = time.monotonic()
    with held(_folder(system.state), Running(os.getpid(), "")):
        servers = stores.embedded(system.user, system.state, ports_of(system.services))
        with stores.running(servers, console):
            _say_stores(servers, console, started)
            for name, value in stores.variables(servers).items():
                print(f"export {name}={value}", flush=True)
            asyncio.run(_run(replace(system, services=()), servers, {}, console, lambda: None, False))
    console.say("stopped")


async def _run(
    system: System,
    servers: list[Server],
    filled: Mapping[str, str],
    console: Console,
    announce: Callable[[], None],
    reloads: bool,
) -> None:
    keepers = [
        Keeper(service, _of_service(filled, service, system.state), system.state, console, system.patience)
        for service in system.services
    ]
    stop = _stop_on_signals(keepers)
    await migrate(system.services, filled, system.state, console)
    await supervise(keepers, servers, console, stop, system.patience, announce, reloads)


def _stop_on_signals(keepers: Sequence[Keeper]) -> asyncio.Event:
    """The event that the first signal sets; the second kills the services and ends this process at once."""
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            for keeper in keepers:
                keeper.kill()
            os._exit(130)
        stop.set()

    hangup = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    return stop


def _folder(state: Path) -> Path:
    claim(state)
    for name in _FOLDERS:
        (state / name).mkdir(mode=0o700, exist_ok=True)
    return state


def _environment(system: System, servers: list[Server], console: Console) -> dict[str, str]:
    defaults = {"LOG_FORMAT": "console" if console.is_terminal else "json", **addresses(system.services)}
    return environment.completed(system.user, stores.variables(servers), system.state, defaults)


def _of_service(filled: Mapping[str, str], service: Service, state: Path) -> dict[str, str]:
    return {"EVENTS_JOURNAL_DIR": str(state / "journal" / service.name), **filled}


def _say_stores(servers: list[Server], console: Console, started: float) -> None:
    ports = {server.name: server.port for server in servers}
    console.say("stores ready", seconds=round(time.monotonic() - started, 2), **ports)


def _say_ready(system: System, filled: Mapping[str, str], console: Console, seconds: float, is_first: bool) -> None:
    console.say("ready", url=system.url, dashboard=f"{system.url}/dashboard", seconds=round(seconds, 1))
    if is_first and not environment.is_given(system.user, "EDGE_ADMIN_TOKEN"):
        console.say("admin token made; shown this once", token=filled["EDGE_ADMIN_TOKEN"])
    console.plain(_TRY.format(url=system.url))
