"""Runs a service: command line, service port, ops port, drain on SIGTERM, immediate exit on a second signal."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Final, TypeVar

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from common.http.server import AppRunner, Handler, OpenServer, Runner, ServerRunner
from common.runtime import logs, tasks
from common.runtime.loopback import is_loopback
from common.runtime.metrics import LoopMetrics
from common.runtime.process_limits import disable_core_dumps, raise_open_file_limit, tune_gc
from common.runtime.readiness import Readiness, create_ops_app
from common.runtime.settings import SecretFiles, Settings, SettingsError, StartError, load

log = structlog.get_logger()

OPS_DRAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a service listens. The ops port has no access control, so it has a separate address."""

    host: str
    port: int
    ops_port: int
    ops_host: str = "127.0.0.1"

    @classmethod
    def at(cls, index: int, settings: Settings, host: str, port: int | None, ops_port: int | None) -> "Listen":
        """Return the ports base+index and base+1000+index of service `index`, or those that are given."""
        base = settings.sluice_port_base
        return cls(host, port or base + index, ops_port or base + 1000 + index, settings.sluice_ops_host)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is ready to listen. `target` is an aiohttp app, or opens another server.

    `ops` adds routes to the ops port. `around` wraps the request handler of the app. Set `fatal` when only a new
    process helps: the service drains and exits with an error, and its supervisor starts it again.
    """

    target: web.Application | OpenServer
    readiness: Readiness
    registry: CollectorRegistry
    listen: Listen
    drain_s: float
    ops: Callable[[web.Application], None] | None = None
    around: Callable[[Handler], Handler] | None = None
    fatal: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def app(self) -> web.Application:
        """The aiohttp app. Raises TypeError for a service with another server."""
        if not isinstance(self.target, web.Application):
            raise TypeError("this service has no aiohttp app")
        return self.target


class BackgroundTaskFailed(Exception):
    """The service ended because `Service.fatal` was set; the log has the cause."""


S = TypeVar("S", bound=Settings)
Migrate = Callable[[S], None]


def command_line(
    name: str, settings: type[S], create: Callable[[S], Service], *, migrate: Migrate[S] | None = None
) -> int:
    """Run `python -m <service>` and return the exit status: 2 for wrong settings, 1 for other errors."""
    arguments = _parser(name, migrate is not None).parse_args()
    disable_core_dumps()
    secrets = SecretFiles(settings, os.environ)
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
                runner.run(serve(create(config), secrets=secrets))
    except StartError as error:
        log.error("cannot start", reason=str(error))
        return 1
    except BackgroundTaskFailed:
        log.error("stopped for a restart")
        return 1
    except Exception:
        log.exception("stopped by an error")
        return 1
    return 0


def _parser(name: str, migrates: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {name.replace('-', '_')}",
        description=f"The {name} service of Sluice. Settings come from the environment; see .env.example.",
    )
    parser.add_argument("--version", action="version", version=f"sluice-{name} {version(f'sluice-{name}')}")
    parser.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=["serve", "migrate"] if migrates else ["serve"],
        help="serve (default) answers requests; migrate upgrades the tables of this service",
    )
    return parser


async def serve(service: Service, *, stop: asyncio.Event | None = None, secrets: SecretFiles | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then drain for at most `drain_s` and close everything in reverse.

    Raises StartError, and BackgroundTaskFailed when `Service.fatal` was set.
    """
    stop = stop or asyncio.Event()
    _stop_on_signals(stop)
    if secrets is not None:
        _count_changed_secrets(service.registry, secrets)
    ops_app = create_ops_app(service.readiness, service.registry, is_local=is_loopback(service.listen.ops_host))
    if service.ops is not None:
        service.ops(ops_app)
    ops = web.AppRunner(ops_app, access_log=None, shutdown_timeout=OPS_DRAIN_S, lingering_time=0)  # it reads no bodies
    runner = create_runner(service)
    service.readiness.starting = True
    loop_metrics = LoopMetrics(service.registry)
    try:
        raise_open_file_limit()
        await ops.setup()
        await _listen(ops, service.listen.ops_host, service.listen.ops_port)
        await runner.setup()
        await _listen(runner, service.listen.host, service.listen.port)
        service.readiness.starting = False
        log.info("listening", **asdict(service.listen))
        tune_gc()
        await _any_set(stop, service.fatal)
        service.readiness.draining = True
        log.info("draining", at_most_s=service.drain_s)
        await runner.start_draining()
    finally:
        await runner.cleanup()
        await ops.cleanup()
        loop_metrics.close()
    log.info("stopped")
    if service.fatal.is_set():
        raise BackgroundTaskFailed


def create_runner(service: Service) -> Runner:
    """Return the runner that opens the resources of `service`, serves its public port and closes everything."""
    if isinstance(service.target, web.Application):
        return AppRunner(service.target, service.readiness, service.drain_s, service.around)
    return ServerRunner(service.target, service.drain_s)


async def _any_set(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            await tasks.cancel_and_wait(task)


def _count_changed_secrets(registry: CollectorRegistry, secrets: SecretFiles) -> None:
    """This process continues with the secrets that it read."""
    description = "Secret files whose content is no longer what this process read at its start."
    Gauge("sluice_secrets_changed", description, registry=registry).set_function(secrets.changed)


async def _listen(runner: web.BaseRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except socket.gaierror as error:
        raise StartError(f"host {host} is unknown; set this service's host to an address of this machine") from error
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
