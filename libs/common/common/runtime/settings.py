"""Settings from the environment: exact names, bounded numbers, and one clear line for an error."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeVar, get_args
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FilePath, SecretStr, ValidationError

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_POSTGRES_EXAMPLE: Final = (
    "postgresql://user:password@host:5432/database, with any of /?#@[] in the password percent-encoded"
)


def _plain_postgres(value: object) -> object:
    """Check a PostgreSQL URL. The scheme of SQLAlchemy is accepted, too."""
    if not isinstance(value, str):
        return value
    url = value.replace("postgresql+asyncpg://", "postgresql://", 1)
    if not url.startswith(("postgresql://", "postgres://")) or not _is_url(url):
        raise ValueError(f"it must look like {_POSTGRES_EXAMPLE}")
    return url


def _is_url(url: str) -> bool:
    """Whether each host of a URL has a valid port or none. PostgreSQL URLs may list several hosts.

    A password with unescaped characters could be parsed as a port, path or query and appear in errors. So there is at
    most one `@`, before the hosts, and a query consists of pairs.
    """
    try:
        parts = urlsplit(url)
        parse_qs(parts.query, strict_parsing=bool(parts.query))
        hosts = parts.netloc.rpartition("@")[2].split(",")
        has_ports = all(urlsplit(f"//{host}").port != 0 for host in hosts)
        return has_ports and url.count("@") == parts.netloc.count("@") <= 1
    except ValueError:  # its message may include the value
        return False


def is_web_address(url: str) -> bool:
    """Whether `url` is http(s)://host with an optional valid port and any path."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


PostgresUrl = Annotated[SecretStr, BeforeValidator(_plain_postgres)]


class StartError(Exception):
    """The service cannot start. The message names the cause and the cure in one line."""


class SettingsError(Exception):
    """A variable is malformed, missing or unknown. The message names it in one line."""


class Settings(BaseModel):
    """Settings of every service. Field `x_y` is variable `X_Y`; an empty variable counts as unset.

    An unknown variable that starts with one of `prefixes` stops the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    prefixes: ClassVar[tuple[str, ...]] = ("SLUICE_",)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    sluice_port_base: Annotated[int, Field(ge=1024, le=64_000)] = 8000
    sluice_ops_host: str = "127.0.0.1"
    sluice_drain_s: Seconds = 15.0

    def postgres_connections(self) -> int:
        """Return the largest number of connections of one process."""
        return 0


class PostgresSettings(BaseModel):
    """The address of PostgreSQL."""

    database_url: PostgresUrl


class RedisSettings(BaseModel):
    """The address of Redis, or of a compatible server."""

    redis_host: str = "localhost"
    redis_port: Port = 6379
    redis_db: Annotated[int, Field(ge=0, le=15)] = 0
    redis_username: str = ""
    redis_password: SecretStr = SecretStr("")
    redis_tls: bool = False
    redis_ca_file: FilePath | None = None
    redis_cluster: bool = False
    redis_timeout_s: Seconds = 2.0


class EventsSettings(BaseModel):
    """The event journal."""

    events_journal_dir: Path = Path(".sluice/journal")
    events_journal_max_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 40)] = 1 << 30
    events_journal_keep_s: Seconds = 600.0
    events_when_full: Literal["refuse", "drop"] = "refuse"
    events_hash_key: SecretStr = SecretStr("")
    events_store_text: bool = False


S = TypeVar("S", bound=Settings)


def load(cls: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read `cls` from the environment. Raises SettingsError."""
    env = os.environ if environ is None else environ
    fields, secrets = variables(cls), _secrets(cls)
    known = fields.keys() | {f"{name}_FILE" for name in secrets}
    for name in sorted(env):
        if name.startswith(cls.prefixes) and name not in known:
            raise SettingsError(f"{name} is not a setting: check its spelling against .env.example")
    values = {field: _secret(name, env) if name in secrets else env.get(name) for name, field in fields.items()}
    try:
        return cls.model_validate({field: value for field, value in values.items() if value})
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def variables(cls: type[Settings]) -> dict[str, str]:
    """Return a map from variable to field for every setting of `cls`."""
    return {field.upper(): field for field in cls.model_fields}


class SecretFiles:
    """Detects changes of secret files. Create it before `load`, so that it misses none."""

    def __init__(self, cls: type[Settings], environ: Mapping[str, str]) -> None:
        paths = [environ.get(f"{name}_FILE") for name in _secrets(cls)]
        self._digests = {path: _digest(path) for path in paths if path}

    def changed(self) -> int:
        """Return how many have other content than at the start, or are gone."""
        return sum(_digest(path) != digest for path, digest in self._digests.items())


def _digest(path: str) -> bytes | None:
    try:
        return hashlib.sha256(Path(path).read_bytes().rstrip(b"\r\n")).digest()
    except OSError:
        return None


def _secrets(cls: type[Settings]) -> set[str]:
    """The variables that may be given as a file, too."""
    return {name for name, field in variables(cls).items() if _mentions_secret(cls.model_fields[field].annotation)}


def _mentions_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, get_args(annotation)))


def _secret(name: str, env: Mapping[str, str]) -> str:
    """Return the value, or the content of its file, without the line end of a pasted one."""
    value, path = env.get(name, "").rstrip("\r\n"), env.get(f"{name}_FILE")
    if not path:
        return value
    if value:
        raise SettingsError(f"{name} and {name}_FILE are both set: keep one")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{name}_FILE cannot be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{name}_FILE cannot be read: it is not UTF-8 text") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # an invalid combination, which the reason names
        return reason
    name = str(first["loc"][0]).upper()
    if first["type"] == "missing":
        return f"{name} is not set: it is required (see .env.example)"
    return f"{name} is not valid: {reason}"
