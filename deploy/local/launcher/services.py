"""The services that make up the system, as data: how each is started, reached, probed, migrated and reloaded."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.ports import is_free
from launcher.state import ROOT

DEFAULT_PORT_BASE = 8000
LOOPBACK = "127.0.0.1"
_OPS_SHIFT = 1000
_HIGHEST_BASE = 64_000


class PortError(Exception):
    """A port is taken or not a port; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the system. It will listen on `port` of `host`; `ops_port` of `ops_host` answers `/readyz`.

    `named_in` are the variables from which the other services learn its URL.
    """

    name: str
    argv: tuple[str, ...]
    port: int
    ops_port: int
    host: str = LOOPBACK
    ops_host: str = LOOPBACK
    named_in: tuple[str, ...] = ()
    migration: tuple[str, ...] | None = None
    sources: tuple[Path, ...] = ()
    is_front: bool = False

    @property
    def mark(self) -> str:
        """What its command line, and no stranger's, contains."""
        return " ".join(self.argv)

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = reachable(self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    package: str
    prefix: str
    named_in: tuple[str, ...] = ()
    migrates: bool = True


_LISTED = (
    _Listed("edge-limiter", "edge_limiter", "EDGE"),
    _Listed("inference", "inference", "INFERENCE", ("EDGE_UPSTREAM_INFERENCE",), migrates=False),
    _Listed("metrics", "metrics", "METRICS", ("EDGE_UPSTREAM_METRICS", "ANALYST_METRICS_URL")),
    _Listed("analyst", "analyst", "ANALYST", ("EDGE_UPSTREAM_ANALYST",)),
)
NAMES = tuple(listed.name for listed in _LISTED)


def services(environment: Mapping[str, str]) -> tuple[Service, ...]:
    """The four services, the front one first, on the ports that the environment names."""
    base = _port(environment, "SLUICE_PORT_BASE", DEFAULT_PORT_BASE)
    return tuple(_service(listed, base + place, environment) for place, listed in enumerate(_LISTED))


def addresses(found: tuple[Service, ...]) -> dict[str, str]:
    """The environment variables that lead the services to each other."""
    return {name: service.url for service in found for name in service.named_in}


def reachable(host: str) -> str:
    """An address of the server that listens on `host`: one that listens everywhere is reached on loopback."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def ports_of(wanted: Iterable[Service]) -> set[int]:
    """All on which they will listen."""
    return {port for service in wanted for port in (service.port, service.ops_port)}


def check_ports(wanted: tuple[Service, ...]) -> None:
    """PortError when another program listens on a port that a service needs."""
    for service in wanted:
        for port in (service.port, service.ops_port):
            if not is_free(port):
                raise PortError(
                    f"Port {port}, which {service.name} needs, is taken by another program. "
                    f"Use other ports: SLUICE_PORT_BASE={_free_base()} make run"
                )


def _service(listed: _Listed, default_port: int, environment: Mapping[str, str]) -> Service:
    python = (sys.executable, "-m", listed.package)
    return Service(
        name=listed.name,
        argv=python,
        port=_port(environment, f"{listed.prefix}_PORT", default_port),
        ops_port=_port(environment, f"{listed.prefix}_OPS_PORT", default_port + _OPS_SHIFT),
        host=environment.get(f"{listed.prefix}_HOST") or LOOPBACK,
        ops_host=reachable(environment.get("SLUICE_OPS_HOST") or LOOPBACK),
        named_in=listed.named_in,
        migration=(*python, "migrate") if listed.migrates else None,
        sources=(ROOT / "services" / listed.name / listed.package, ROOT / "libs" / "common" / "common"),
        is_front=listed.prefix == "EDGE",
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if value.isdecimal() and 0 < int(value) <= _HIGHEST_BASE:
        return int(value)
    raise PortError(f"{name} is {value!r}; it must be a port from 1 to {_HIGHEST_BASE}.")


def _free_base() -> int:
    bases = range(DEFAULT_PORT_BASE + 100, 20_000, 100)
    shifts = [place + shift for place in range(len(_LISTED)) for shift in (0, _OPS_SHIFT)]
    return next((base for base in bases if all(is_free(base + shift) for shift in shifts)), bases[0])
