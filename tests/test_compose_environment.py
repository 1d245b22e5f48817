"""compose.yaml overrides what .env must not change, and no secret from .env reaches an environment."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s_check.settings import SETTINGS, listens, start

DEPLOY = Path(__file__).parents[1] / "deploy" / "compose"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
NAMES = {"edge": "edge-limiter", "inference": "inference", "metrics": "metrics", "analyst": "analyst"}
SECRET = "of-dotenv-1234567890"
FIELDS = {name.upper(): field for cls in SETTINGS.values() for name, field in cls.model_fields.items()}
SECRETS = [name for name, field in FIELDS.items() if "SecretStr" in repr(field.annotation)]
DOTENV = {
    **dict.fromkeys(SECRETS, SECRET),
    "SLUICE_PORT_BASE": "28100",
    "SLUICE_OPS_HOST": "127.0.0.1",
    "SLUICE_DRAIN_S": "3600",
    **{f"{service.upper()}_{name}": "28200" for service in NAMES for name in ("PORT", "OPS_PORT")},
    **{"REDIS_HOST": "elsewhere", "REDIS_PORT": "6380", "REDIS_USERNAME": "other"},
    **{"REDIS_TLS": "true", "REDIS_CA_FILE": "/ca.crt", "REDIS_CLUSTER": "true"},
}


def merged(service: str) -> dict[str, str]:
    """Return a service's environment: in Compose, `environment` overrides `env_file`."""
    declared: dict[str, Any] = COMPOSE["services"][service]
    return {**DOTENV, **declared["environment"]}


@pytest.mark.parametrize("service", NAMES)
def test_address_or_time_in_dotenv__is_overridden(service: str) -> None:
    cls = SETTINGS[NAMES[service]]
    found, declared = start(cls, merged(service)), start(cls, COMPOSE["services"][service]["environment"])
    assert found == declared
    listen = listens(found)
    assert listen is not None
    place = list(NAMES).index(service)
    assert (listen.host, listen.port, listen.ops_host, listen.ops_port) == (
        "0.0.0.0",
        8000 + place,
        "0.0.0.0",
        9000 + place,
    )


@pytest.mark.parametrize("service", NAMES)
def test_secret_in_dotenv__reaches_no_environment(service: str) -> None:
    assert "GEMINI_API_KEY" in SECRETS
    assert [name for name, value in merged(service).items() if value == SECRET] == []


@pytest.mark.parametrize("service", NAMES)
def test_every_secret_file__is_mounted_and_created(service: str) -> None:
    declared = COMPOSE["services"][service]
    files = {Path(value).name for name, value in declared["environment"].items() if name.endswith("_FILE") and value}
    assert files == set(declared["secrets"])
    assert files <= set(COMPOSE["secrets"])
    made = (DEPLOY / "make-secrets").read_text()
    assert [name for name in files if name not in made] == []


def test_settings_of_the_launcher__do_not_stop_a_service() -> None:
    both = {
        "PG_BINDIR": "/usr/lib/postgresql/16/bin",
        "REDIS_SERVER_BIN": "/usr/bin/valkey-server",
        "PUBLISH_PORT": "80",
    }
    for service, name in NAMES.items():
        start(SETTINGS[name], merged(service) | both)


def test_compose__reads_the_env_file_of_make_run() -> None:
    assert (DEPLOY / ".env").readlink() == Path("../../.env")
    assert {str(COMPOSE["services"][service]["env_file"]) for service in NAMES} == {
        "[{'path': '../../.env', 'required': False}]"
    }


def test_every_image__is_built_for_one_service_only() -> None:
    built = [service["image"] for service in COMPOSE["services"].values() if "build" in service]
    assert len(built) == len(set(built)) == len(NAMES)


def test_watch__covers_the_sources_of_each_image() -> None:
    for service in NAMES:
        paths = [DEPLOY / rule["path"] for rule in COMPOSE["services"][service]["develop"]["watch"]]
        assert [(path / "__init__.py").exists() for path in paths] == [True, True]


def test_route_outside__is_opened_only_by_a_key_or_a_webhook(tmp_path: Path) -> None:
    assert not any("outbound" in service.get("networks", ()) for service in COMPOSE["services"].values())
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    secrets, override = tmp_path / "secrets", tmp_path / "override.yaml"
    secrets.mkdir()

    def selected(key: str, url: str) -> Any:
        (secrets / "gemini-api-key").write_text(key)
        (secrets / "webhook-url").write_text(url)
        subprocess.run([DEPLOY / "select-overlays", secrets, override], check=True)
        return yaml.safe_load(override.read_text())["services"]

    assert selected("\n", "\n") == {"analyst": {}, "metrics": {}}
    assert selected("one\n", "\n")["analyst"]["networks"] == ["inside", "outbound"]
    assert selected("one\n", "\n")["metrics"] == {}
    assert selected("", "https://hooks.example.com\n")["metrics"]["networks"] == ["inside", "outbound"]
    # A label changes with the key, so Compose recreates the service.
    assert selected("one\n", "")["analyst"]["labels"] != selected("two\n", "")["analyst"]["labels"]
    assert "one" not in str(selected("one\n", ""))
