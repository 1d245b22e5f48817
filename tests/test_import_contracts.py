"""The import contracts agree with each other: what is of the domain's floor is forbidden the libraries that do I/O."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
DOMAIN_FLOORS = {"edge_limiter": 1, "inference": 2, "metrics": 1, "analyst": 1}


def test_every_module_of_the_domain__is_forbidden_io() -> None:
    layers = {contract["containers"][0]: contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"}
    domain = {
        f"{package}.{module}"
        for package, floors in DOMAIN_FLOORS.items()
        for floor in layers[package][-floors:]
        for module in re.split(r" [:|] ", floor)
    }
    (pure,) = [contract for contract in CONTRACTS if "aiohttp" in contract.get("forbidden_modules", ())]
    assert set(pure["source_modules"]) == domain
