"""`python -m k8s_check`: renders each overlay with kustomize, validates and cross-checks it; says all that is wrong."""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from k8s_check.model import Manifests, Resource
from k8s_check.rules import RULES, problems
from k8s_check.schemas import VERSIONS, kubernetes_problems, operator_problems

OVERLAYS: Final = Path(__file__).parent.parent / "overlays"
PROMISED: Final = "secrets.example.yaml"


def main(overlays: Path = OVERLAYS) -> int:
    """The exit status: 1 when anything is wrong, 2 when nothing could be rendered."""
    kustomize = find_kustomize()
    if kustomize is None:
        print("neither kustomize nor kubectl is installed; on Debian: apt install kustomize", file=sys.stderr)
        return 2
    failed = False
    for overlay in sorted(path.parent for path in overlays.glob("*/kustomization.yaml")):
        started = time.perf_counter()
        manifests = Manifests(render(kustomize, overlay), promised(overlay))
        wrong = validate(manifests.resources) + problems(manifests)
        failed = failed or bool(wrong)
        print("\n".join(f"{overlay.name}: {line}" for line in wrong), end="\n" if wrong else "")
        took_s = time.perf_counter() - started
        print(f"{overlay.name}: {len(manifests.resources)} resources, {len(wrong)} errors, {took_s:.1f} s")
    print(f"schemas of Kubernetes {', '.join(VERSIONS)}; {len(RULES)} rules between resources")
    return int(failed)


def find_kustomize() -> list[str] | None:
    """The command that renders a folder."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def render(kustomize: Sequence[str], overlay: Path) -> list[Resource]:
    """Raises CalledProcessError, after kustomize has said why."""
    done = subprocess.run([*kustomize, str(overlay)], check=True, stdout=subprocess.PIPE, text=True)
    return read(done.stdout)


def promised(overlay: Path) -> list[Resource]:
    """Secrets documented beside the overlay, or beside the one that it builds on."""
    folders = [overlay, *((overlay / base).resolve() for base in _bases(overlay))]
    return [
        secret for folder in folders if (folder / PROMISED).exists() for secret in read((folder / PROMISED).read_text())
    ]


def read(text: str) -> list[Resource]:
    return [Resource(document) for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def validate(resources: Sequence[Resource]) -> list[str]:
    """What any schema says against them."""
    wrong = []
    for resource in resources:
        own = operator_problems(resource)
        if own is None:
            own = [line for version in VERSIONS for line in kubernetes_problems(resource, version)]
        wrong += own
    return wrong


def _bases(overlay: Path) -> list[str]:
    declared = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    return [str(base) for base in declared.get("resources", ())]


if __name__ == "__main__":
    sys.exit(main())
