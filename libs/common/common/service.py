"""Runs one service: command line, service port and ops port, drain on SIGTERM, exit at once on a second signal."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, TypeVar

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry

from common import logs
from common.ops import Readiness, create_ops_app
from common.settings import Settings, SettingsError, load

log = structlog.get_logger()

KEEPALIVE_S: Final = 60.0
OPS_DRAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Where one service listens: its public port and its ops port, on one address."""

    host: str
    port: int
    ops_port: int

    @classmethod
    def at(cls, index: int, base: int, host: str, port: int | None, ops_port: int | None) -> "Listen":
        """Service `index` of the system listens on base+index and base+1000+index unless told otherwise."""
        return cls(host, port or base + index, ops_port or base + 1000 + index)


@dataclass(frozen=True, slots=True)
class Service:
    """A built service, ready to listen."""

    app: web.Application
    readiness: Readiness
    registry: CollectorRegistry
    listen: Listen
    drain_s: float


class StartError(Exception):
    """The service cannot start; the message is one line that names the cause and the cure."""


S = TypeVar("S", bound=Settings)
Migrate = Callable[[S], None]


def command_line(
    name: str,
    settings: type[S],
    create: Callable[[S], Service],
    *,
    migrate: Migrate[S] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """The `python -m <service>` of every service. Returns the exit status: 2 when settings are wrong."""
    arguments = _parser(name, settings, migrate is not None).parse_args(argv)
    try:
        config = load(settings)
    except SettingsError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201  # logs are not set up yet
        return 2
    logs.configure(name, level=config.log_level, log_format=config.log_format)
    try:
        if arguments.command == "migrate" and migrate is not None:
            migrate(config)
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(create(config)))
    except StartError as error:
        log.error("cannot start", reason=str(error))
        return 1
    except Exception:
        log.exception("ended by an error")
        return 1
    return 0


def _parser(name: str, settings: type[Settings], migrates: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {name.replace('-', '_')}",
        description=f"The {name} service of Sluice. Settings come from the environment; see .env.example.",
    )
    parser.add_argument("--version", action=_Version, name=f"sluice-{name}", help="print the version and exit")
    parser.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=["serve", "migrate"] if migrates else ["serve"],
        help="serve (default) answers requests; migrate brings this service's tables up to date",
    )
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, name: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)
        self._name = name

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.exit(message=f"{self._name} {version(self._name)}\n")


async def serve(service: Service, *, stop: asyncio.Event | None = None) -> None:
    """Listen until SIGTERM, SIGINT or `stop`; then refuse new work, drain for at most `drain_s`, close in reverse."""
    stop = stop or asyncio.Event()
    _stop_on_signals(stop)
    ops = web.AppRunner(
        create_ops_app(service.readiness, service.registry), access_log=None, shutdown_timeout=OPS_DRAIN_S
    )
    runner = web.AppRunner(
        service.app,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=service.drain_s,
    )
    try:
        await ops.setup()
        await _listen(ops, service.listen.host, service.listen.ops_port)
        await runner.setup()
        await _listen(runner, service.listen.host, service.listen.port)
        log.info("listening", host=service.listen.host, port=service.listen.port, ops_port=service.listen.ops_port)
        await stop.wait()
        service.readiness.draining = True
        log.info("draining", at_most_s=service.drain_s)
    finally:
        await runner.cleanup()
        await ops.cleanup()
    log.info("stopped")


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except socket.gaierror as error:
        raise StartError(f"host {host} is not known; set this service's host to an address of this machine") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "not possible"
        raise StartError(f"port {port} on {host}: {reason}; set SLUICE_PORT_BASE or this service's port") from error


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
