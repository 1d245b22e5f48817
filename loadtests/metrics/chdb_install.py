"""Makes a virtual environment of the embedded ClickHouse, below .cache; does nothing where it is.

    python loadtests/metrics/chdb_install.py

Its package comes by plain pip, outside of this project's lock.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

PLACE: Final = Path(__file__).parents[2] / ".cache" / "peers" / "chdb"
PACKAGE: Final = "chdb==4.4.0"


def python() -> Path:
    """The interpreter that has it, installed if need be. Raises CalledProcessError where it can't be."""
    done, interpreter = PLACE / ".installed", PLACE / "bin" / "python"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
        subprocess.run(pip, check=True)
        done.touch()
    return interpreter


if __name__ == "__main__":
    print(python())
