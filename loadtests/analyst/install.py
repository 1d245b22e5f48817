"""Makes the virtual environment of the caching libraries that bench_analyst compares with; does nothing if it is there.

    python loadtests/analyst/install.py

The libraries come by plain pip, outside of this project's lock.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

PLACE: Final = Path(__file__).parents[2] / ".cache" / "peers" / "analyst"
PYTHON: Final = PLACE / "bin" / "python"
PACKAGES: Final = ("cashews==7.6.0", "aiocache==0.12.3", "redis==8.1.0", "hiredis", "uvloop")


def install() -> Path:
    """The interpreter that has them."""
    done = PLACE / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        done.touch()
    return PYTHON


if __name__ == "__main__":
    print(install())
