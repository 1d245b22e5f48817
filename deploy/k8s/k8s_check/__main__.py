"""`python -m k8s_check`: render each overlay with kustomize, validate it and cross-check its resources."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from k8s_check.model import Manifests, Resource
from k8s_check.rules import RULES, problems
from k8s_check.schemas import VERSIONS, schema_problems

ROOT: Final = Path(__file__).parents[3]
OVERLAYS: Final = ROOT / "deploy/k8s/overlays"
EXAMPLE: Final = ROOT / "deploy/k8s/example"
EXPECTED_SECRETS: Final = "secrets.example.yaml"
_REMOTE: Final = re.compile(r"https://git\.example\.com/platform/sluice//(\S+)\?ref=\S+")


def main(overlays: Path = OVERLAYS) -> int:
    """Return the exit status: 1 if an overlay has a problem, 2 if kustomize is missing."""
    kustomize = find_kustomize()
    if kustomize is None:
        print("neither kustomize nor kubectl is installed; on Debian: apt install kustomize", file=sys.stderr)
        return 2
    folders = sorted(path.parent for path in overlays.glob("*/kustomization.yaml"))
    with tempfile.TemporaryDirectory() as outside:
        if overlays == OVERLAYS:
            folders.append(copy_example(Path(outside)))
        found = [check(kustomize, folder) for folder in folders]
    print(f"schemas of Kubernetes {', '.join(VERSIONS)}; {len(RULES)} rules between resources")
    return int(any(found))


def check(kustomize: Sequence[str], overlay: Path) -> list[str]:
    """Print and return the problems of one overlay."""
    started = time.perf_counter()
    manifests = Manifests(render(kustomize, overlay), expected_secrets(overlay))
    wrong = [problem for resource in manifests.resources for problem in schema_problems(resource)]
    wrong += problems(manifests)
    print("\n".join(f"{overlay.name}: {line}" for line in wrong), end="\n" if wrong else "")
    took_s = time.perf_counter() - started
    print(f"{overlay.name}: {len(manifests.resources)} resources, {len(wrong)} problems, {took_s:.1f} s")
    return wrong


def copy_example(outside: Path) -> Path:
    """Copy the example overlay out of the clone, with this clone in place of its remote base."""
    folder = outside / "example"
    folder.mkdir()
    clone = os.path.relpath(ROOT, folder.resolve())
    text = (EXAMPLE / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(_REMOTE.sub(rf"{clone}/\1", text))
    return folder


def find_kustomize() -> list[str] | None:
    """Return the command that renders a folder."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def render(kustomize: Sequence[str], overlay: Path) -> list[Resource]:
    """Raises CalledProcessError, after kustomize has printed its error."""
    done = subprocess.run([*kustomize, str(overlay)], check=True, stdout=subprocess.PIPE, text=True)
    return read(done.stdout)


def expected_secrets(overlay: Path) -> list[Resource]:
    """Return the Secrets documented for the overlay and for its bases."""
    declared = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    folders = [overlay, *((overlay / str(base)).resolve() for base in declared.get("resources", ()))]
    files = [folder / EXPECTED_SECRETS for folder in folders]
    return [secret for file in files if file.exists() for secret in read(file.read_text())]


def read(text: str) -> list[Resource]:
    return [Resource(document) for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


if __name__ == "__main__":
    sys.exit(main())
