"""Starts, queries, pauses and stops the servers that are compared."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import MODEL, ROOT, python_of

START_S: Final = 120.0
BUNDLED: Final = ROOT / "services" / "inference" / "inference" / "models" / "bundled"
NO_SPINNING: Final = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TOKENIZERS_PARALLELISM": "false"}
NO_TELEMETRY: Final = {"ORT_DISABLE_TELEMETRY": "1"}  # for servers that load ONNX Runtime themselves


@dataclass
class Server:
    """One server on 127.0.0.1 in a separate process group. `@` in `body` is replaced by the text."""

    name: str
    argv: list[str]
    port: int
    environment: dict[str, str]
    path: str = "/predict"
    body: str = '{"text": @}'
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, log: Path) -> None:
        """Start it and wait until it scores a text."""
        environment = os.environ | NO_SPINNING | NO_TELEMETRY | self.environment
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                self.argv, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.name} does not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def pause(self) -> None:
        """Pause its processes until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()

    def ask(self, text: str) -> bytes:
        """Return the response to one text."""
        return self.send(self.path, self.body.replace("@", json.dumps(text)))

    def send(self, path: str, body: str) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            found: bytes = response.read()
            return found

    def _answers(self) -> bool:
        try:
            return b"POSITIVE" in self.ask("A wonderful film.")
        except (OSError, urllib.error.URLError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)


def ours(port: int, state: Path, redis: dict[str, str]) -> Server:
    """Our service with journal and stream, without cache and de-duplication."""
    environment = {
        "INFERENCE_PORT": str(port),
        "INFERENCE_OPS_PORT": str(port + 1000),
        "INFERENCE_CACHE_BYTES": "0",
        "EVENTS_JOURNAL_DIR": str(state / "journal"),
        "EVENTS_JOURNAL_MAX_BYTES": str(4 << 30),
        "LOG_LEVEL": "warning",
        **redis,
    }
    return Server("sluice", [sys.executable, "-m", "inference"], port, environment)


def pipeline(port: int, threads: int = 2) -> Server:
    environment = {"MODEL": str(MODEL), "PORT": str(port), "THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    return Server("FastAPI + pipeline", [str(python_of("pipeline")), _program("pipeline_server.py")], port, environment)


def infinity(port: int, threads: int = 2) -> Server:
    program = str(python_of("infinity").with_name("infinity_emb"))
    argv = [program, "v2", "--model-id", str(MODEL), "--engine", "torch", "--device", "cpu", "--no-bettertransformer"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model", "--log-level", "error"]
    environment = {"OMP_NUM_THREADS": str(threads), "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return Server("Infinity, torch", argv, port, environment, "/classify", '{"model": "model", "input": [@]}')


def litserve(port: int, workers: int = 2, threads: int = 1) -> Server:
    environment = {"BUNDLE": str(BUNDLED), "PORT": str(port), "WORKERS": str(workers), "THREADS": str(threads)}
    return Server(
        "LitServe, our session", [str(python_of("litserve")), _program("litserve_server.py")], port, environment
    )


def _program(name: str) -> str:
    return str(Path(__file__).with_name(name))
