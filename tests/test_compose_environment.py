"""What compose.yaml sets itself stays, whatever .env holds, and no secret of that comes into an environment."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s_check.environment import SETTINGS, listens, start

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
    **{"REDIS_HOST": "elsewhere", "REDIS_PORT": "6380", "REDIS_USERNAME": "nobody"},
    **{"REDIS_TLS": "true", "REDIS_CA_FILE": "/ca.crt", "REDIS_CLUSTER": "true"},
}


def merged(service: str) -> dict[str, str]:
    """A service's environment as Compose makes it, which puts what it names itself over what a file holds."""
    declared: dict[str, Any] = COMPOSE["services"][service]
    return {**DOTENV, **declared["environment"]}


@pytest.mark.parametrize("service", NAMES)
def test_address_or_time_of_dotenv__is_not_taken(service: str) -> None:
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
def test_secret_of_dotenv__is_in_no_environment(service: str) -> None:
    assert "GEMINI_API_KEY" in SECRETS
    assert [name for name, value in merged(service).items() if value == SECRET] == []


@pytest.mark.parametrize("service", NAMES)
def test_every_secret_file__is_mounted_and_made(service: str) -> None:
    declared = COMPOSE["services"][service]
    files = {Path(value).name for name, value in declared["environment"].items() if name.endswith("_FILE") and value}
    assert files == set(declared["secrets"])
    assert files <= set(COMPOSE["secrets"])
    made = (DEPLOY / "make-secrets").read_text()
    assert [name for name in files if name not in made] == []


def test_way_out__is_the_analysts_and_by_choice_that_of_metrics() -> None:
    outside = {name for name, one in COMPOSE["services"].items() if "outbound" in one.get("networks", ())}
    assert outside == {"analyst"}
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    chosen = yaml.safe_load((DEPLOY / "compose.webhook.yaml").read_text())
    assert chosen == {"services": {"metrics": {"networks": ["inside", "outbound"]}}}
