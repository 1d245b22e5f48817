"""A real PgBouncer in transaction mode in front of PostgreSQL, configured as in docs/operations/stores.md."""

import shutil
import signal
from pathlib import Path

import psutil

from launcher.postgres import USER, Postgres
from launcher.processes import give, unprivileged
from launcher.server import Server, StoreError

SERVER_CONNECTIONS = 3  # fewer than the clients of any test


class PgBouncer(Server):
    """Offers every database of the server, with the same names and passwords."""

    name = "PgBouncer"
    stop_signal = signal.SIGTERM

    def __init__(self, state: Path, port: int, postgres: Postgres) -> None:
        super().__init__(state, port)
        found = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
        if found is None:
            raise StoreError("PgBouncer is not installed; on Debian: apt install pgbouncer")
        self.program = Path(found)
        self._postgres = postgres

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._postgres.password}@127.0.0.1:{self.port}/{database}"

    def launch(self) -> None:
        (self.state / "users").write_text(f'"{USER}" "{self._postgres.password}"\n')
        (self.state / "pgbouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={self._postgres.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.state}/users
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_prepared_statements = 200
ignore_startup_parameters = search_path,statement_timeout
""")
        identity = unprivileged(self.state, self.program)
        give(self.state, identity)
        self._spawn([*identity.prefix, str(self.program), str(self.state / "pgbouncer.ini")], identity)

    def is_ready(self) -> bool:
        if self.process is None or not self.is_running:
            return False
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return any(connection.status == psutil.CONN_LISTEN for connection in connections)

    def end_stranded(self) -> None:
        """It dies with its parent."""
