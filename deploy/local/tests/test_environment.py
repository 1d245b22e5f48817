"""Precedence of values from .env, the user and the launcher."""

from pathlib import Path

import pytest

from launcher.services import SettingError, completed, read_dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("NAME=value # remark", "value"),
    ],
)
def test_dotenv__line_is_read(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"# first\n\n{line}\n#NAME=commented out\n")
    assert read_dotenv(tmp_path / ".env") == {"NAME": value}


def test_dotenv__missing_file_is_empty(tmp_path: Path) -> None:
    assert read_dotenv(tmp_path / ".env") == {}


def test_dotenv__line_without_name_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnonsense\n")
    with pytest.raises(SettingError, match=r"\.env, line 2"):
        read_dotenv(tmp_path / ".env")


def test_completed__keeps_set_values_and_fills_empty_ones(tmp_path: Path) -> None:
    user = {"LOG_FORMAT": "console", "EDGE_ADMIN_TOKEN": "", "GEMINI_API_KEY": "", "PATH": "/bin"}
    found = completed(user, {"REDIS_PORT": "12345"}, tmp_path, {"LOG_FORMAT": "json"})
    assert found["LOG_FORMAT"] == "console"
    assert found["EDGE_ADMIN_TOKEN"] == (tmp_path / "edge-admin-token").read_text()
    assert (found["GEMINI_API_KEY"], found["PATH"]) == ("", "/bin")


def test_embedded_store__overrides_a_leftover_variable(tmp_path: Path) -> None:
    assert completed({"REDIS_PORT": "1"}, {"REDIS_PORT": "12345"}, tmp_path, {})["REDIS_PORT"] == "12345"


@pytest.mark.parametrize(("stores", "reaches"), [({"DATABASE_URL": "embedded"}, False), ({}, True)])
def test_postgresql_client_variable__applies_only_to_a_server_of_the_user(
    tmp_path: Path, stores: dict[str, str], reaches: bool
) -> None:
    assert ("PGSSLMODE" in completed({"PGSSLMODE": "require"}, stores, tmp_path, {})) is reaches


def test_secret__in_a_file_of_the_user__is_not_generated(tmp_path: Path) -> None:
    found = completed({"EVENTS_HASH_KEY_FILE": "/run/secrets/key"}, {}, tmp_path, {})
    assert "EVENTS_HASH_KEY" not in found


def test_dotenv__that_is_not_text__is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"# caf\xe9\nA=1\n")
    with pytest.raises(SettingError, match=r"\.env is not UTF-8 text"):
        read_dotenv(tmp_path / ".env")
