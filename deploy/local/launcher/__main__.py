"""The command line of the launcher: `sluice run|dev|infra|stop|status|logs|token`."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from launcher.app import System, run
from launcher.keeper import StartError, end_stranded_services, log_path
from launcher.logs import Console, show
from launcher.processes import signalled
from launcher.server import StoreError
from launcher.services import NAMES, SettingError, check_names, is_given, read_dotenv, services, status_of
from launcher.state import ROOT, STATE, Running, StateError, holder, secret_file

_MARKS = ("launcher", "bin/sluice")  # one is in the command line of the process that runs the system
_STOP_S = 100.0
_POLL_S = 0.1
_NOT_RUNNING = "not running; `make run` starts it"


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the event loop handles signals
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except (SettingError, StateError, StartError, StoreError) as error:
        print(f"launcher: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # for example a full or read-only disk
        print(f"launcher: {f'{error.strerror}: {error.filename}' if error.filename else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    system = _system(arguments)
    check_names(system.user)
    run(system, Console(is_quiet=not arguments.reloads, never_blocks=True), reloads=arguments.reloads)
    return 0


def _infra(arguments: argparse.Namespace) -> int:
    run(replace(_system(arguments), services=()), Console())
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    running = holder(arguments.state)
    if running is None:
        end_stranded_services(services({}), arguments.state)
        print("not running")
        return 0
    if not any(signalled(running.pid, mark, signal.SIGTERM) for mark in _MARKS):
        print("another launcher is starting or stopping the system; try again")
        return 1
    deadline = time.monotonic() + _STOP_S
    while holder(arguments.state) is not None:
        if time.monotonic() > deadline:
            print(f"pid {running.pid} has not stopped after {_STOP_S:.0f} s; `make stop` again kills the services")
            return 1
        time.sleep(_POLL_S)
    print("stopped")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    running = holder(arguments.state)
    if running is None:
        print(_NOT_RUNNING)
        return 1
    print(f"running at {running.url}, pid {running.pid}" if running.url else f"only the stores run, pid {running.pid}")
    for name, status in zip(running.ops, asyncio.run(_statuses(running)), strict=True):
        readiness = {200: "ready", None: "no answer"}.get(status, f"not ready ({status})")
        print(f"  {name:12}  ops port {running.ops[name][1]}  {readiness}")
    return 0


async def _statuses(running: Running) -> list[int | None]:
    return await asyncio.gather(*(status_of(host, port) for host, port in running.ops.values()))


def _logs(arguments: argparse.Namespace) -> int:
    names = [arguments.service] if arguments.service else NAMES
    paths = [log_path(arguments.state, name) for name in names]
    if not any(path.exists() for path in paths):
        print("there are no logs yet; `make run` starts the system")
        return 1
    show(paths, Console(), arguments.last, arguments.follow)
    return 0


def _token(arguments: argparse.Namespace) -> int:
    user, name = _environment(arguments.state), "EDGE_ADMIN_TOKEN"
    path = Path(user.get(f"{name}_FILE") or secret_file(arguments.state, name))
    if not is_given(user, name) and not path.exists():
        print(_NOT_RUNNING)
        return 1
    print(user.get(name) or path.read_text().strip())
    return 0


def _system(arguments: argparse.Namespace) -> System:
    user = _environment(arguments.state)
    return System(services(user), user, arguments.state.absolute())


def _environment(state: Path) -> dict[str, str]:
    """Return the shell's variables and those in .env. Tests and load tests use other state folders, without .env."""
    dotenv = read_dotenv(ROOT / ".env") if state.resolve() == STATE.resolve() else {}
    return {**dotenv, **os.environ}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sluice", description="Run the whole system on this machine.")
    parser.add_argument(
        "--state", type=Path, default=STATE, help="state folder (default: .sluice, which also reads .env)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("run", _run, "start stores, migrations and services; Ctrl-C stops them in order").set_defaults(reloads=False)
    add("dev", _run, "like run; a service restarts when its source changes").set_defaults(reloads=True)
    add("infra", _infra, "start only the stores, and print the variables that lead to them")
    add("stop", _stop, "stop what `run` started, in order")
    add("status", _status, "show what is running and whether it is ready")
    logs = add("logs", _logs, "print the last lines of the services' logs in the order of their time")
    logs.add_argument("service", nargs="?", choices=NAMES)
    logs.add_argument("--follow", "-f", action="store_true", help="print new lines until Ctrl-C")
    logs.add_argument("--last", "-n", type=int, default=40, metavar="N", help="number of lines (40)")
    add("token", _token, "print the admin token")
    return parser


if __name__ == "__main__":
    sys.exit(main())
