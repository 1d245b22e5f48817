"""Settings are read by their exact names, and anything wrong stops the start with one line that echoes no value."""

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field, SecretStr

from common.runtime.settings import (
    EventsSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    SettingsError,
    load,
    variables,
)


class ProbeSettings(Settings, PostgresSettings, RedisSettings, EventsSettings):
    prefixes: ClassVar[tuple[str, ...]] = ("SLUICE_", "PROBE_", "EVENTS_")

    probe_count: Annotated[int, Field(ge=1, le=10)] = 3
    probe_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    probe_token: Annotated[SecretStr, Field(min_length=3)] | None = None


SECRET = "hunter2-wrong"
URL = {"DATABASE_URL": "postgresql://user:word@127.0.0.1:5432/db"}

DEFAULTS: dict[str, object] = {
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "auto",
    "SLUICE_PORT_BASE": 8000,
    "SLUICE_DRAIN_S": 15.0,
    "SLUICE_OPS_HOST": "127.0.0.1",
    "REDIS_HOST": "localhost",
    "REDIS_PORT": 6379,
    "REDIS_DB": 0,
    "REDIS_USERNAME": "",
    "REDIS_PASSWORD": SecretStr(""),
    "REDIS_TLS": False,
    "REDIS_CA_FILE": None,
    "REDIS_CLUSTER": False,
    "REDIS_TIMEOUT_S": 2.0,
    "EVENTS_JOURNAL_DIR": Path(".sluice/journal"),
    "EVENTS_JOURNAL_MAX_BYTES": 1 << 30,
    "EVENTS_JOURNAL_KEEP_S": 600.0,
    "EVENTS_WHEN_FULL": "refuse",
    "EVENTS_HASH_KEY": SecretStr(""),
    "EVENTS_STORE_TEXT": False,
    "PROBE_COUNT": 3,
    "PROBE_SHARE": 0.5,
    "PROBE_TOKEN": None,
}


def message(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as raised:
        load(ProbeSettings, environ)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_names_and_defaults__are_exactly_these() -> None:
    loaded = load(ProbeSettings, URL)
    names = variables(ProbeSettings)
    assert {name: getattr(loaded, field) for name, field in names.items() if name != "DATABASE_URL"} == DEFAULTS


def test_values__are_read_by_name() -> None:
    loaded = load(ProbeSettings, URL | {"REDIS_PORT": "7000", "REDIS_TLS": "true", "PROBE_SHARE": "1", "LANG": "C"})
    assert (loaded.redis_port, loaded.redis_tls, loaded.probe_share) == (7000, True, 1.0)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_empty__means_not_set(name: str) -> None:
    loaded = load(ProbeSettings, URL | {name: ""})
    assert getattr(loaded, name.lower()) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", SECRET),
        ("SLUICE_PORT_BASE", "64001"),
        ("SLUICE_DRAIN_S", "nan"),
        ("SLUICE_DRAIN_S", "inf"),
        ("SLUICE_DRAIN_S", "0"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_PORT", "0"),
        ("REDIS_DB", "-1"),
        ("REDIS_TLS", SECRET),
        ("EVENTS_WHEN_FULL", SECRET),
        ("EVENTS_JOURNAL_MAX_BYTES", "1"),
        ("PROBE_COUNT", "11"),
        ("PROBE_COUNT", "3.5"),
        ("PROBE_COUNT", SECRET),
        ("PROBE_TOKEN", "ab"),
        ("DATABASE_URL", SECRET),
        ("DATABASE_URL", f"mysql://root:{SECRET}@db/x"),
        ("DATABASE_URL", f"postgresql://root:{SECRET}@db:port/x"),
        ("DATABASE_URL", f"postgresql://root:{SECRET}@[db/x"),
        ("DATABASE_URL", f"postgresql://root:{SECRET}@db:5432,other:port/x"),
        *(("DATABASE_URL", f"postgresql://root:{start}{SECRET}@db/x") for start in ("?", "12?", "12?a=", "a@b?", "/")),
        *(
            ("DATABASE_URL", f"postgresql://root:{start}{SECRET}@db/x")
            for start in ("12/", "#", "12#", "a@", "a[", "a]")
        ),
        ("DATABASE_URL", f"postgresql://root:word@db/x?{SECRET}"),
    ],
)
def test_malformed_value__is_one_line_that_names_the_variable_and_echoes_nothing(name: str, value: str) -> None:
    text = message(URL | {name: value})
    assert text.startswith(f"{name} is not valid: ")
    assert len(value) < 3 or value not in text


def test_missing_required_variable__is_named() -> None:
    assert message({}) == "DATABASE_URL is not set: it is required (see .env.example)"
    assert message({"DATABASE_URL": ""}).startswith("DATABASE_URL is not set")


@pytest.mark.parametrize("name", ["PROBE_CUONT", "SLUICE_X", "EVENTS_", "PROBE_COUNT_FILE"])
def test_unknown_name_under_our_prefix__is_named(name: str) -> None:
    assert message(URL | {name: SECRET}).startswith(f"{name} is not a setting")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgresql+asyncpg://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgres://u:p@h:1/d?sslmode=require", "postgres://u:p@h:1/d?sslmode=require"),
        ("postgresql://u:postgresql+asyncpg@h/d", "postgresql://u:postgresql+asyncpg@h/d"),
        ("postgresql://u:p@a:5432,b:5432/d", "postgresql://u:p@a:5432,b:5432/d"),
        ("postgresql://u:12%3F%2F%23%40@h/d?a=b%40c&e=", "postgresql://u:12%3F%2F%23%40@h/d?a=b%40c&e="),
    ],
)
def test_postgres_url__is_accepted_in_its_common_spellings(given: str, read: str) -> None:
    assert load(ProbeSettings, {"DATABASE_URL": given}).database_url.get_secret_value() == read


def test_secrets__never_show_when_printed() -> None:
    loaded = load(ProbeSettings, URL | {"REDIS_PASSWORD": SECRET, "PROBE_TOKEN": SECRET})
    assert SECRET not in repr(loaded)
    assert "word" not in repr(loaded).replace("password", "")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_secret__is_read_without_its_line_end(end: str) -> None:
    loaded = load(ProbeSettings, URL | {"PROBE_TOKEN": f"abc{end}"})
    assert loaded.probe_token is not None
    assert loaded.probe_token.get_secret_value() == "abc"


def test_secret_file__is_read_without_its_line_end(tmp_path: Path) -> None:
    for name, content in {"url": URL["DATABASE_URL"] + "\n", "token": "abc\r\n"}.items():
        (tmp_path / name).write_bytes(content.encode())
    loaded = load(ProbeSettings, {"DATABASE_URL_FILE": f"{tmp_path}/url", "PROBE_TOKEN_FILE": f"{tmp_path}/token"})
    assert loaded.database_url.get_secret_value() == URL["DATABASE_URL"]
    assert loaded.probe_token is not None
    assert loaded.probe_token.get_secret_value() == "abc"


def test_secret_in_both_places__is_refused_unless_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("from file")
    both = {"REDIS_PASSWORD": SECRET, "REDIS_PASSWORD_FILE": str(path)}
    assert message(URL | both) == "REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set: keep one"
    loaded = load(ProbeSettings, URL | both | {"REDIS_PASSWORD": ""})
    assert loaded.redis_password.get_secret_value() == "from file"


def test_empty_secret_file__means_not_set(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert load(ProbeSettings, URL | {"PROBE_TOKEN_FILE": f"{tmp_path}/empty"}).probe_token is None


def test_unreadable_secret_file__is_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    for path, reason in {
        tmp_path / "absent": "No such file or directory",
        tmp_path: "Is a directory",
        tmp_path / "binary": "it is not UTF-8 text",
    }.items():
        assert message({"DATABASE_URL_FILE": str(path)}) == f"DATABASE_URL_FILE cannot be read: {reason}"
