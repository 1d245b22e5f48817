"""The command line of the launcher: `python -m launcher run|dev|infra|stop|restart|status|logs`."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from launcher import environment
from launcher.app import System, run, run_stores
from launcher.environment import DotenvError, read_dotenv
from launcher.follow import show
from launcher.keeper import StartError, end_stranded_services, log_path, patience, recorded_pid
from launcher.logs import Console
from launcher.probe import status_of
from launcher.processes import signalled
from launcher.server import StoreError
from launcher.services import NAMES, PortError, Service, services
from launcher.state import ROOT, STATE, StateError, holder

_MARK = "launcher"  # in the command line of whoever runs the system
_STORE_LOGS = ("postgres", "valkey")
_STORES_STOP_S = 40.0
_RESTART_TIMEOUT_S = 60.0
_POLL_S = 0.1
_NOT_RUNNING = "not running; `make run` starts it"


def main() -> int:
    asked = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the event loop takes signals over
    try:
        if asked.state.resolve() == STATE.resolve():  # tests and load tests have systems of their own
            for name, value in read_dotenv(ROOT / ".env").items():
                os.environ.setdefault(name, value)
        command: Callable[[argparse.Namespace, System], int] = asked.command
        system = System(
            services(os.environ), os.environ, asked.state.absolute(), patience(environment.drain_s(os.environ))
        )
        return command(asked, system)
    except (DotenvError, PortError, StateError, StartError, StoreError) as error:
        print(f"launcher: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a disk that is full or read-only, no process left
        where = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        print(f"launcher: {where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(asked: argparse.Namespace, system: System) -> int:
    run(system, Console(skips=True), reloads=asked.reloads)
    return 0


def _infra(asked: argparse.Namespace, system: System) -> int:
    run_stores(system, Console())
    return 0


def _stop(asked: argparse.Namespace, system: System) -> int:
    running = holder(system.state)
    if running is None:
        end_stranded_services(system.services, system.state, system.patience)
        print("not running")
        return 0
    if not signalled(running.pid, _MARK, signal.SIGTERM):
        print("it is being started or stopped by another launcher; try again")
        return 1
    within_s = 2 * system.patience.drain_s + _STORES_STOP_S  # the front, the others, the stores
    if not _happens(lambda: holder(system.state) is None, within_s):
        print(f"pid {running.pid} has not stopped after {within_s:.0f} s")
        return 1
    print("stopped")
    return 0


def _restart(asked: argparse.Namespace, system: System) -> int:
    service = next(service for service in system.services if service.name == asked.service)
    pid = recorded_pid(system.state, service.name)
    if holder(system.state) is None or pid is None or not signalled(pid, service.mark, signal.SIGTERM):
        print(_NOT_RUNNING)
        return 1

    def is_back() -> bool:
        return recorded_pid(system.state, service.name) != pid and asyncio.run(_answer(service)) == 200

    return 0 if _happens(is_back, _RESTART_TIMEOUT_S) else 1


def _status(asked: argparse.Namespace, system: System) -> int:
    running = holder(system.state)
    print(f"running at {running.url or 'no URL, the stores alone'}, pid {running.pid}" if running else _NOT_RUNNING)
    for service, status in zip(system.services, asyncio.run(_statuses(system)), strict=True):
        said = "no answer" if status is None else f"/readyz {status}"
        print(f"  {service.name:12}  port {service.port}  ops {service.ops_port}  {said}")
    return 0 if running else 1


async def _answer(service: Service) -> int | None:
    return await status_of(service.ops_host, service.ops_port)


async def _statuses(system: System) -> list[int | None]:
    return await asyncio.gather(*(_answer(service) for service in system.services))


def _logs(asked: argparse.Namespace, system: System) -> int:
    names = [asked.service] if asked.service else [*NAMES, *_STORE_LOGS]
    paths = [log_path(system.state, name) for name in names]
    if not any(path.exists() for path in paths):
        print("nothing has been logged yet; `make run` starts what logs")
        return 1
    show(paths, Console(), asked.last, asked.follow)
    return 0


def _happens(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description="Runs the whole system on this machine.")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of all state; with .sluice .env is read")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace, System], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("run", _run, "start stores, migrations and services; Ctrl-C stops them in order").set_defaults(reloads=False)
    add("dev", _run, "like run; a service restarts when its source changes").set_defaults(reloads=True)
    add("infra", _infra, "start only the stores, and print the variables that point to them")
    add("stop", _stop, "stop what `run` started, in order")
    restart = add("restart", _restart, "restart one service and wait until it is ready")
    restart.add_argument("service", choices=NAMES)
    add("status", _status, "show what is running and whether it is ready")
    logs = add("logs", _logs, "print the last lines of the logs; with --follow, new ones too")
    logs.add_argument("service", nargs="?", choices=[*NAMES, *_STORE_LOGS])
    logs.add_argument("--follow", "-f", action="store_true", help="print new lines until Ctrl-C")
    logs.add_argument("--last", "-n", type=int, default=20, metavar="N", help="lines to print from each log (20)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
