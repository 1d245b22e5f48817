"""Keep one service running: start it, report when it is ready, restart it with back-off, stop it."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.logs import MAX_LINE_BYTES, Console, LogFile, lines, normalized
from launcher.processes import end_stranded, tied_to_parent
from launcher.services import Service, status_of

_PROBE_INTERVAL_S = 0.1
_LAST_LINES_S = 0.2  # to read what is left in the pipe, which a child of the service may keep open
_INVALID_SETTINGS = 2  # the exit status of a service that refuses its settings
_NOT_STARTED = 127  # the exit status that shells use


class StartError(Exception):
    """A service does not start or a migration failed; the message gives its last line and its log."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Delays and limits of starting a service."""

    first_restart_s: float = 0.1
    longest_restart_s: float = 15.0
    max_starts: int = 3
    ready_s: float = 60.0


PATIENCE = Patience()


class Keeper:
    """The process of one service across its restarts. Run `keep` as a task; it ends after `stop`."""

    def __init__(
        self, service: Service, environment: Mapping[str, str], state: Path, console: Console, patience: Patience
    ) -> None:
        self.service = service
        self._environment, self._state = environment, state
        self._console, self._patience = console, patience
        self._process: asyncio.subprocess.Process | None = None
        self._stopping, self._ready = asyncio.Event(), asyncio.Event()

    async def keep(self) -> None:
        """Run the service until `stop`; StartError if it exits repeatedly without ever having been ready."""
        starts, delay_s = 0, self._patience.first_restart_s
        while not self._stopping.is_set():
            starts += 1
            code, was_ready, last_line = await self._run()
            if self._stopping.is_set():
                break
            if not self._ready.is_set() and (code == _INVALID_SETTINGS or starts >= self._patience.max_starts):
                raise StartError(failure(f"{self.service.name} does not start (exit {code})", last_line, self._log))
            if was_ready:
                delay_s = self._patience.first_restart_s
            self._console.say("service exited", name=self.service.name, exit=code, restart_in_s=delay_s)
            await self._pause(delay_s)
            delay_s = min(delay_s * 2, self._patience.longest_restart_s)

    async def ready(self) -> None:
        """Wait until the service's readiness probe has succeeded once."""
        await self._ready.wait()

    def restart(self) -> None:
        """Ask the running process to exit; `keep` starts the next one."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Ask the service to drain and exit, and wait until it has. It limits its drain itself (SLUICE_DRAIN_S)."""
        self._stopping.set()
        self.restart()
        if self._process is not None:
            await self._process.wait()

    @property
    def _log(self) -> Path:
        return log_path(self._state, self.service.name)

    async def _run(self) -> tuple[int, bool, str]:
        """Run the process once; return its exit status, whether it was ready, and its last line."""
        try:
            process = self._process = await spawn(self.service.argv, self._environment)
        except OSError as error:  # out of memory or processes, or the program is missing: that may change
            self._console.say("service cannot be started", name=self.service.name, reason=str(error))
            return _NOT_STARTED, False, str(error)
        self._write_pid(process.pid)
        if self._stopping.is_set():  # `stop` was called during the start
            process.terminate()
        output = Output(self.service.name, self._log, self._console)
        probing = asyncio.create_task(self._probe())
        copying = asyncio.create_task(output.copy(process))
        try:
            code = await process.wait()
            was_ready = probing.done()
            await asyncio.wait({copying}, timeout=_LAST_LINES_S)
        finally:
            probing.cancel()
            copying.cancel()
            await asyncio.gather(probing, copying, return_exceptions=True)
        return code, was_ready, output.last_line

    def _write_pid(self, pid: int) -> None:
        """For cleaning up after a killed launcher."""
        try:
            pid_file(self._state, self.service.name).write_text(str(pid))
        except OSError as error:
            self._console.say("pid not written", name=self.service.name, reason=str(error))

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(self._patience.ready_s):
                await self._answers()
        except TimeoutError:
            self._console.say("service not ready yet", name=self.service.name, see=str(self._log))
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


class Output:
    """Copies a process's lines to its log and the console, and keeps the last one."""

    def __init__(self, name: str, path: Path, console: Console) -> None:
        self._name, self._path, self._console = name, path, console
        self.last_line = ""

    async def copy(self, process: asyncio.subprocess.Process, has: str | None = None) -> int:
        """Copy until the end; return how many lines contain `has`."""
        assert process.stdout is not None
        log, found = LogFile(self._path), 0
        try:
            async for line in lines(process.stdout):
                record = normalized(self._name, line)
                log.write(record)
                self._console.line(record)
                self.last_line = line.strip() or self.last_line
                found += has is not None and has in line
        finally:
            log.close()
        return found


async def spawn(argv: tuple[str, ...], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a process whose output is read through a pipe and which ends with the launcher."""
    return await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=MAX_LINE_BYTES,
        start_new_session=True,
        preexec_fn=tied_to_parent(signal.SIGTERM),
    )


def failure(what: str, last_line: str, log: Path) -> str:
    return f"{what}: {last_line}\nThe full log is {log}" if last_line else f"{what}; see {log}"


def end_stranded_services(services: tuple[Service, ...], state: Path) -> None:
    """Stop services that outlived a killed launcher, so that their ports are free."""
    for service in services:
        if (pid := recorded_pid(state, service.name)) is not None:
            end_stranded(pid, service.mark, signal.SIGTERM)


def recorded_pid(state: Path, name: str) -> int | None:
    """Return the last known pid of a service."""
    try:
        return int(pid_file(state, name).read_text())
    except (OSError, ValueError):
        return None


def pid_file(state: Path, name: str) -> Path:
    return state / "run" / f"{name}.pid"


def log_path(state: Path, name: str) -> Path:
    return state / "logs" / f"{name}.log"
