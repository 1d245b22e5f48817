"""The process of an embedded store: started until it answers, stopped, killed, and started again."""

import math
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.processes import Identity, end, tied_to_parent

_POLL_S = 0.02
_LAUNCHES = 5
_RELAUNCH_AFTER_S = 0.5


class StoreError(Exception):
    """A store cannot be started; the message gives the cause and, if there is one, the cure."""


class Server(ABC):
    """A store on 127.0.0.1 with its state in one folder. All calls block; use them from the main thread."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, state: Path, port: int, log: Path | None = None) -> None:
        self.state = state.absolute()
        self.port = port
        self.log = log or self.state / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def launch(self) -> None:
        """Prepare the state folder and start the process, without waiting until it answers."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers now."""

    @abstractmethod
    def end_stranded(self) -> None:
        """Wait for a server of this folder that outlived its launcher, or end it."""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Launch the server and wait until it answers; StoreError with the end of its log if it exits."""
        self.launch()
        self.wait_ready()

    def wait_ready(self, on_late: Callable[[], None] = lambda: None, late_s: float = 30.0) -> None:
        """Wait while the server runs: after a crash it may replay its log for minutes, and killed, it would start over.

        `on_late` is called once after `late_s`.
        """
        late_at, launches = time.monotonic() + late_s, 1
        while not self.is_ready():
            if not self.is_running and launches == _LAUNCHES:
                raise StoreError(f"{self.name} does not start; the end of {self.log}:\n{self._last_lines()}")
            if not self.is_running:
                time.sleep(_RELAUNCH_AFTER_S)  # children of a killed server still hold its shared memory
                self.launch()
                launches += 1
            elif time.monotonic() > late_at:
                on_late()
                late_at = math.inf
            time.sleep(_POLL_S)

    def stop(self, patience_s: float = 20.0) -> None:
        """Stop it in order, so that acknowledged writes survive."""
        if self.process is not None:
            end(self.process, self.stop_signal, patience_s)

    def kill(self) -> None:
        """End it and its children as a power cut would, for tests."""
        from psutil import Process  # installed only for tests

        if not self.is_running or self.process is None:
            return  # its pid may be in use by another process
        server = Process(self.process.pid)
        server.suspend()  # so that it starts no further children
        for process in (*server.children(), server):
            process.kill()
        self.process.wait()

    def _spawn(self, argv: Sequence[str], identity: Identity | None = None) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=self.state if identity is None else "/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=tied_to_parent(self.stop_signal),
                **(identity.options if identity else {}),
            )
        return self.process

    def _last_lines(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-2000:]
        except OSError:
            return ""
