"""Which stores this machine runs itself, on which ports, and how the services reach them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from launcher.environment import is_given
from launcher.logs import Console
from launcher.ports import free_ports, is_free
from launcher.postgres import Postgres
from launcher.server import Server
from launcher.valkey import Valkey

_OF_ANOTHER_REDIS = {  # what was set for a server that is not used now
    "REDIS_DB": "0",
    "REDIS_USERNAME": "",
    "REDIS_PASSWORD_FILE": "",
    "REDIS_TLS": "false",
    "REDIS_CA_FILE": "",
    "REDIS_CLUSTER": "false",
}


def embedded(user: Mapping[str, str], state: Path, reserved: Collection[int] = ()) -> list[Server]:
    """The servers to run here: each store for which the user named no server of his own, on no reserved port."""
    wanted: list[type[Postgres] | type[Valkey]] = []
    if not is_given(user, "DATABASE_URL"):
        wanted.append(Postgres)
    if not is_given(user, "REDIS_HOST"):
        wanted.append(Valkey)
    servers: list[Server] = []
    for kind in wanted:
        servers.append(_on_its_port(kind, state, {*reserved, *(server.port for server in servers)}))
    return servers


@contextmanager
def running(servers: list[Server], console: Console) -> Iterator[None]:
    """All servers, started side by side and stopped in reverse order."""

    def tell(server: Server) -> None:
        console.say("store recovers its data; that can take minutes", name=server.name, see=str(server.log))

    with ExitStack() as stopped:
        for server in servers:
            server.launch()
            stopped.callback(server.stop)
        for server in servers:
            server.wait_ready(on_recovery=partial(tell, server))
        yield


def variables(servers: list[Server]) -> dict[str, str]:
    """The environment variables that lead to the embedded servers."""
    found: dict[str, str] = {}
    for server in servers:
        if isinstance(server, Postgres):
            found["DATABASE_URL"] = server.url()
        elif isinstance(server, Valkey):
            found |= {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "REDIS_PASSWORD": server.password}
            found |= _OF_ANOTHER_REDIS
    return found


def _on_its_port(kind: type[Postgres] | type[Valkey], state: Path, reserved: Collection[int]) -> Server:
    """The server on the port of last time, unless somebody else has taken it since or will."""
    name = kind.__name__.lower()
    remembered, log = state / f"{name}.port", state / "logs" / f"{name}.log"
    server = kind(state / name, _noted(remembered) or 0, log)
    server.end_stranded()
    if not server.port or server.port in reserved or not is_free(server.port):
        server.port = next(port for port in free_ports() if port not in reserved)
    remembered.write_text(str(server.port))
    return server


def _noted(file: Path) -> int | None:
    """A full disk, too, leaves none: an empty file."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 1 << 16 else None
