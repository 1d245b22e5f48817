"""The four services: how each is started, reached and probed, and what its environment contains."""

import asyncio
import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.ports import is_free
from launcher.state import ROOT, kept_secret, secret_file

DEFAULT_PORT_BASE = 8000
LOOPBACK = "127.0.0.1"
GENERATED = ("EVENTS_HASH_KEY", "EDGE_ADMIN_TOKEN")
_OPS_OFFSET = 1000
_HIGHEST_BASE = 64_000
_PROBE_TIMEOUT_S = 2.0
_PREFIXES = ("SLUICE_", "EDGE_", "METRICS_", "ANALYST_", "INFERENCE_", "EVENTS_", "GEMINI_")


class SettingError(Exception):
    """A setting is unknown or malformed, or its port is taken; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the system. It listens on `port` of `host`; `/readyz` is on `ops_port` of `ops_host`.

    `named_in` lists the variables in which other services expect its URL.
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
        """A part of its command line that identifies its process."""
        return " ".join(self.argv)

    @property
    def url(self) -> str:
        host = _reachable(self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


_NAMED_IN = {  # the services in the order of their ports, the front one first
    "edge-limiter": (),
    "inference": ("EDGE_UPSTREAM_INFERENCE",),
    "metrics": ("EDGE_UPSTREAM_METRICS", "ANALYST_METRICS_URL"),
    "analyst": ("EDGE_UPSTREAM_ANALYST",),
}
NAMES = tuple(_NAMED_IN)


def services(environment: Mapping[str, str]) -> tuple[Service, ...]:
    """Return the four services, the front one first, on the ports that the environment names."""
    base = _port(environment, "SLUICE_PORT_BASE", DEFAULT_PORT_BASE)
    return tuple(_service(name, base + place, environment) for place, name in enumerate(NAMES))


def addresses(found: Iterable[Service]) -> dict[str, str]:
    """Return the variables in which the services find each other."""
    return {name: service.url for service in found for name in service.named_in}


def ports_of(wanted: Iterable[Service]) -> set[int]:
    return {port for service in wanted for port in (service.port, service.ops_port)}


def check_ports(wanted: Iterable[Service]) -> None:
    """Raise SettingError when another program listens on a port that a service needs."""
    for service in wanted:
        for port in (service.port, service.ops_port):
            if not is_free(port):
                raise SettingError(
                    f"Port {port}, needed by {service.name}, is in use by another program. "
                    f"Use other ports: SLUICE_PORT_BASE={_free_base()} make run"
                )


def check_names(environment: Mapping[str, str]) -> None:
    """Raise SettingError for a variable that has a prefix of ours and is not a setting in .env.example."""
    known = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    for name, value in environment.items():
        if value and name.startswith(_PREFIXES) and name.removesuffix("_FILE") not in known and name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            raise SettingError(f"{name} is not a setting." + (f" Did you mean {similar[0]}?" if similar else ""))


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the values in a .env file; empty if there is no file. A line that is not KEY=VALUE is an error."""
    if not path.exists():
        return {}
    from dotenv.parser import parse_stream  # imported here because `stop` and `status` run without .venv

    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except UnicodeDecodeError as error:
        raise SettingError(f"{path.name} is not UTF-8 text.") from error
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            raise SettingError(f"{path.name}, line {binding.original.line}: not of the form KEY=VALUE.")
    return {binding.key: binding.value for binding in bindings if binding.key is not None and binding.value is not None}


def is_given(environment: Mapping[str, str], name: str) -> bool:
    """Whether the user set the variable or, for a secret, its `_FILE` variant."""
    return bool(environment.get(name) or environment.get(f"{name}_FILE"))


def completed(
    user: Mapping[str, str], stores: Mapping[str, str], state: Path, defaults: Mapping[str, str]
) -> dict[str, str]:
    """Return the user's environment with defaults, generated secrets and the embedded stores.

    Variables of PostgreSQL's client library (PGSSLMODE and so on) belong to another server than the embedded one.
    """
    filled = dict(defaults)
    for name in GENERATED:
        if not is_given(user, name):
            filled[name] = kept_secret(secret_file(state, name))
    set_by_user = {name: value for name, value in user.items() if value or name not in filled}
    if "DATABASE_URL" in stores:
        set_by_user = {name: value for name, value in set_by_user.items() if not name.startswith("PG")}
    return {**filled, **set_by_user, **stores}


async def status_of(host: str, port: int) -> int | None:
    """Return the status code of `/readyz`, or None without an answer in time."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _reachable(host: str) -> str:
    """Return an address of a server that listens on `host`; all addresses include loopback."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def _service(name: str, default_port: int, environment: Mapping[str, str]) -> Service:
    package = name.replace("-", "_")
    prefix = package.removesuffix("_limiter").upper()
    python = (sys.executable, "-m", package)
    return Service(
        name=name,
        argv=python,
        port=_port(environment, f"{prefix}_PORT", default_port),
        ops_port=_port(environment, f"{prefix}_OPS_PORT", default_port + _OPS_OFFSET),
        host=environment.get(f"{prefix}_HOST") or LOOPBACK,
        ops_host=_reachable(environment.get("SLUICE_OPS_HOST") or LOOPBACK),
        named_in=_NAMED_IN[name],
        migration=None if name == "inference" else (*python, "migrate"),
        sources=(ROOT / "services" / name / package, ROOT / "libs" / "common" / "common"),
        is_front=name == "edge-limiter",
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if value.isdecimal() and 0 < int(value) <= _HIGHEST_BASE:
        return int(value)
    raise SettingError(f"{name} is {value!r}; it must be a port from 1 to {_HIGHEST_BASE}.")


def _free_base() -> int:
    bases = range(DEFAULT_PORT_BASE + 100, 20_000, 100)
    offsets = [place + offset for place in range(len(NAMES)) for offset in (0, _OPS_OFFSET)]
    return next((base for base in bases if all(is_free(base + offset) for offset in offsets)), bases[0])
