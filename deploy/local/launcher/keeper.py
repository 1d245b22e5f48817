"""Keeps one service running: starts it, tells when it is ready, restarts it with back-off, stops it; knows no other."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.logs import Console, LogFile, lines
from launcher.probe import status_of
from launcher.processes import end_stranded, tied_to_parent
from launcher.services import Service

_PROBE_INTERVAL_S = 0.1
_LAST_LINES_S = 1.0
_CLOSING_S = 15.0  # after its drain a service ships what it can and closes its connections
_WRONG_SETTINGS = 2  # the exit status of a service whose settings stop it
_NOT_STARTED = 127  # as shells say it


class StartError(Exception):
    """A service does not come up, or a migration failed; the message names its log."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, and when to give up."""

    first_restart_s: float = 0.5
    longest_restart_s: float = 15.0
    steady_after_s: float = 30.0
    starts_before_giving_up: int = 3
    ready_s: float = 60.0
    drain_s: float = 30.0


PATIENCE = Patience()


def patience(drain_s: float) -> Patience:
    """For services that drain as long as that, which is not long enough to be killed for."""
    return replace(PATIENCE, drain_s=max(PATIENCE.drain_s, drain_s + _CLOSING_S))


class Keeper:
    """The process of one service, over all its restarts. `keep` is its one task, which ends after `stop`."""

    def __init__(
        self, service: Service, environment: Mapping[str, str], state: Path, console: Console, patience: Patience
    ) -> None:
        self.service = service
        self._environment = environment
        self._pid_file = pid_file(state, service.name)
        self._log_path = log_path(state, service.name)
        self._console, self._patience = console, patience
        self._process: asyncio.subprocess.Process | None = None
        self._stopping, self._ready = asyncio.Event(), asyncio.Event()

    async def keep(self) -> None:
        """Run the service until `stop`; StartError when it ends again and again without having been ready."""
        log = LogFile(self._log_path)
        starts, delay_s = 0, self._patience.first_restart_s
        try:
            while not self._stopping.is_set():
                starts += 1
                code, ran_s = await self._run(log)
                if self._stopping.is_set():
                    break
                if not self._ready.is_set() and self._is_hopeless(code, starts):
                    raise StartError(f"{self.service.name} does not start (exit {code}); see {self._log_path}")
                if code == 0 or ran_s > self._patience.steady_after_s:
                    delay_s = self._patience.first_restart_s
                self._console.say("service ended", name=self.service.name, exit=code, restart_in_s=delay_s)
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, self._patience.longest_restart_s)
        finally:
            log.close()

    def _is_hopeless(self, code: int, starts: int) -> bool:
        return code == _WRONG_SETTINGS or starts >= self._patience.starts_before_giving_up

    async def ready(self) -> None:
        """Returns when the service has answered its readiness probe."""
        await self._ready.wait()

    def restart(self) -> None:
        """Ask the running process to end; `keep` starts the next one."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the running process without asking."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Ask the service to drain and end, and kill it when it has not in time."""
        self._stopping.set()
        self.restart()
        if self._process is None:
            return
        try:
            async with asyncio.timeout(self._patience.drain_s):
                await self._process.wait()
        except TimeoutError:
            self._console.say("service killed", name=self.service.name, after_s=self._patience.drain_s)
            self.kill()

    async def _run(self, log: LogFile) -> tuple[int, float]:
        """One life of the process: its exit code and its length."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            process = self._process = await self._spawn()
        except OSError as error:  # no memory, no room for a process, or no such program: that may change
            self._console.say("service cannot be started", name=self.service.name, reason=str(error))
            return _NOT_STARTED, 0.0
        self._note(process.pid)
        if self._stopping.is_set():  # `stop` came while it was being started
            process.terminate()
        assert process.stdout is not None
        probing = asyncio.create_task(self._probe())
        copying = asyncio.create_task(self._copy(process.stdout, log))
        try:
            code = await process.wait()
            await asyncio.wait({copying}, timeout=_LAST_LINES_S)  # a child of the service may keep the pipe open
        finally:
            probing.cancel()
            copying.cancel()
            await asyncio.gather(probing, copying, return_exceptions=True)
        return code, clock() - started

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.service.argv,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=tied_to_parent(signal.SIGTERM),
        )

    def _note(self, pid: int) -> None:
        """For `make restart`, and for who cleans up after a launcher that was killed; nothing else needs it."""
        try:
            self._pid_file.write_text(str(pid))
        except OSError as error:
            self._console.say("pid not noted", name=self.service.name, reason=str(error))

    async def _copy(self, output: asyncio.StreamReader, log: LogFile) -> None:
        async for line in lines(output):
            log.write(line)
            self._console.line(self.service.name, line)

    async def _probe(self) -> None:
        """Tell when this life of the process is ready, and once when it takes long."""
        try:
            async with asyncio.timeout(self._patience.ready_s):
                await self._answers()
        except TimeoutError:
            self._console.say("service not ready yet", name=self.service.name, see=str(self._log_path))
            await self._answers()
        self._ready.set()
        self._console.say("service ready", name=self.service.name, port=self.service.port)

    async def _answers(self) -> None:
        while True:
            if await status_of(self.service.ops_host, self.service.ops_port) == 200:
                return
            await asyncio.sleep(_PROBE_INTERVAL_S)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def end_stranded_services(services: tuple[Service, ...], state: Path, patience: Patience) -> None:
    """End, or wait for, services that outlive a killed launcher, so that their ports are free."""
    for service in services:
        if (pid := recorded_pid(state, service.name)) is not None:
            end_stranded(pid, service.mark, signal.SIGTERM, patience.drain_s)


def recorded_pid(state: Path, name: str) -> int | None:
    """The pid that the service's process had last."""
    try:
        return int(pid_file(state, name).read_text())
    except (OSError, ValueError):
        return None


def pid_file(state: Path, name: str) -> Path:
    return state / "run" / f"{name}.pid"


def log_path(state: Path, name: str) -> Path:
    return state / "logs" / f"{name}.log"
