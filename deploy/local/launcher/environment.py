"""What the services find in their environment: the user's values first, then .env, then what the launcher knows."""

import re
from collections.abc import Mapping
from pathlib import Path

from launcher.secret import kept_secret

_LINE = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>'[^']*'|"[^"]*"|.*?)(?:\s+\#.*)?"""
)
GENERATED = ("EVENTS_HASH_KEY", "EDGE_ADMIN_TOKEN")


class DotenvError(Exception):
    """A line of .env is not KEY=VALUE, and the message names it; or the file is no text."""


def read_dotenv(path: Path) -> dict[str, str]:
    """The values of a .env file: KEY=VALUE, optional quotes, `#` comments; empty when there is no file."""
    if not path.exists():
        return {}
    values = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parsed = _LINE.fullmatch(line.strip())
        if parsed is None:
            raise DotenvError(f"{path.name}, line {number}: not of the form KEY=VALUE")
        values[parsed["name"]] = _unquoted(parsed["value"])
    return values


def is_given(environment: Mapping[str, str], name: str) -> bool:
    """Whether the user set the variable, or for a secret the `_FILE` that holds it."""
    return bool(environment.get(name) or environment.get(f"{name}_FILE"))


def drain_s(environment: Mapping[str, str]) -> float:
    """SLUICE_DRAIN_S; 0 when it is not set, or malformed, which the services say themselves."""
    try:
        return float(environment.get("SLUICE_DRAIN_S") or 0)
    except ValueError:
        return 0.0


def completed(
    user: Mapping[str, str], stores: Mapping[str, str], state: Path, defaults: Mapping[str, str]
) -> dict[str, str]:
    """The user's environment, all that he left open filled in, and the embedded stores, which nobody else can name.

    What drivers of PostgreSQL read beside its URL (PGSSLMODE and so on) he set for another server than ours.
    """
    filled = dict(defaults)
    for name in GENERATED:
        if not is_given(user, name):
            filled[name] = kept_secret(secret_file(state, name))
    set_by_user = {name: value for name, value in user.items() if value or name not in filled}
    if "DATABASE_URL" in stores:
        set_by_user = {name: value for name, value in set_by_user.items() if not name.startswith("PG")}
    return {**filled, **set_by_user, **stores}


def secret_file(state: Path, name: str) -> Path:
    return state / name.lower().replace("_", "-")


def _text(path: Path) -> str:
    text = path.read_bytes()
    try:
        if b"\0" not in text:
            return text.decode()
    except UnicodeDecodeError:
        pass
    raise DotenvError(f"{path.name} is not UTF-8 text")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0] else value
