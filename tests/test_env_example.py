"""`.env.example` lists every variable, commented out, with its default: copying it changes nothing."""

import itertools
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from analyst.settings import AnalystSettings
from common.runtime.settings import Settings, load, variables
from edge_limiter.settings import EdgeSettings
from inference.settings import InferenceSettings
from metrics.settings import MetricsSettings

EXAMPLE = Path(__file__).parents[1] / ".env.example"
SERVICES: list[type[Settings]] = [EdgeSettings, InferenceSettings, MetricsSettings, AnalystSettings]
LAUNCHER = {"PG_BINDIR", "REDIS_SERVER_BIN"}
REQUIRED = {"DATABASE_URL": "postgresql://sluice:secret@localhost:5432/sluice"}


def listed() -> dict[str, str]:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    found = [match for line in lines if (match := re.fullmatch(r"#([A-Z][A-Z0-9_]*)=(.*)", line))]
    return {match[1]: match[2] for match in found}


def test_example__lists_every_variable_and_no_other() -> None:
    expected = {name for cls in SERVICES for name in variables(cls)} | LAUNCHER
    assert set(listed()) == expected


def test_every_variable__has_a_line_that_explains_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    above = {line: before for before, line in itertools.pairwise(lines) if re.match(r"#[A-Z][A-Z0-9_]*=", line)}
    assert len(above) == len(listed())
    assert [line for line, before in above.items() if not re.match(r"# [^-]", before)] == []


def test_example__sets_nothing() -> None:
    active = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    assert active == []


@pytest.mark.parametrize("cls", SERVICES)
def test_values_of_the_example__are_the_defaults(cls: type[Settings]) -> None:
    names = variables(cls)
    example = {name: value for name, value in listed().items() if name in names}
    defaults = load(cls, REQUIRED)
    assert _plain(load(cls, {**example, **REQUIRED})) == _plain(defaults)


def _plain(settings: Settings) -> dict[str, object]:
    values = settings.model_dump()
    values.pop("database_url", None)
    return {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in values.items()}
