"""Makes virtual environments, below .cache, of the peers that the edge is compared with; does nothing where they are.

    python loadtests/edge/install.py

The packages come by plain pip, outside of this project's lock.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

PLACE: Final = Path(__file__).parents[2] / ".cache" / "peers"
PACKAGES: Final = {
    "limiters": ["pyrate-limiter==4.5.1", "psycopg[binary,pool]", "limits==5.8.0", "redis==8.1.0", "hiredis", "uvloop"],
    "fuzz": ["atheris==3.0.0", "httptools==0.9.0"],
    "slowapi": ["fastapi", "slowapi", "redis", "uvicorn[standard]", "httpx"],
}


def python_of(peer: str) -> Path:
    """The interpreter that has the peer's packages, installed if need be."""
    place = PLACE / peer
    done = place / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[peer]], check=True)
        done.touch()
    return place / "bin" / "python"


if __name__ == "__main__":
    for name in PACKAGES:
        print(python_of(name))
