"""The stores that run on this machine, their ports, and the variables that lead services to them."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from launcher.logs import Console
from launcher.ports import free_ports, is_free
from launcher.postgres import Postgres
from launcher.server import Server
from launcher.services import is_given
from launcher.valkey import Valkey

_OTHER_REDIS_SETTINGS = {  # reset: the user set them for another server
    "REDIS_DB": "0",
    "REDIS_USERNAME": "",
    "REDIS_PASSWORD_FILE": "",
    "REDIS_TLS": "false",
    "REDIS_CA_FILE": "",
    "REDIS_CLUSTER": "false",
}


def embedded(user: Mapping[str, str], state: Path, reserved: Collection[int] = ()) -> list[Server]:
    """Return a server for each store that the user does not provide, on ports that are not reserved."""
    kinds: tuple[tuple[str, type[Postgres] | type[Valkey]], ...] = (("DATABASE_URL", Postgres), ("REDIS_HOST", Valkey))
    servers: list[Server] = []
    for variable, kind in kinds:
        if not is_given(user, variable):
            servers.append(_with_port(kind, state, {*reserved, *(server.port for server in servers)}))
    return servers


@contextmanager
def running(servers: list[Server], console: Console) -> Iterator[None]:
    """Start all servers in parallel; stop them in reverse order."""

    def report(server: Server) -> None:
        console.say("store not ready yet; recovery can take minutes", name=server.name, see=str(server.log))

    with ExitStack() as stopped:
        for server in servers:
            server.launch()
            stopped.callback(server.stop)
        for server in servers:
            server.wait_ready(on_late=partial(report, server))
        yield


def variables(servers: list[Server]) -> dict[str, str]:
    """Return the environment variables that lead to the embedded servers."""
    found: dict[str, str] = {}
    for server in servers:
        if isinstance(server, Postgres):
            found["DATABASE_URL"] = server.url()
        elif isinstance(server, Valkey):
            found |= {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "REDIS_PASSWORD": server.password}
            found |= _OTHER_REDIS_SETTINGS
    return found


def _with_port(kind: type[Postgres] | type[Valkey], state: Path, reserved: Collection[int]) -> Server:
    """Return the server on the port of the last start, unless that port is reserved or in use."""
    name = kind.__name__.lower()
    port_file = state / f"{name}.port"
    server = kind(state / name, _read_port(port_file) or 0, state / "logs" / f"{name}.log")
    server.end_stranded()
    if not server.port or server.port in reserved or not is_free(server.port):
        server.port = next(port for port in free_ports() if port not in reserved)
    port_file.write_text(str(server.port))
    return server


def _read_port(file: Path) -> int | None:
    """Return None if the file is missing or, for example after a full disk, empty."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 1 << 16 else None
