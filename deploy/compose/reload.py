"""Development only: runs this container's service, and starts it again when its source or common's changes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

INTERVAL_S = 1.0
STOP_S = 20


def modified(folders: list[Path]) -> dict[Path, int]:
    """Every source file and when it was last written."""
    times = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix in {".py", ".lua", ".html", ".js", ".css"}:
                try:
                    times[path] = path.stat().st_mtime_ns
                except FileNotFoundError:  # an editor replaces it right now
                    continue
    return times


def main() -> int:
    package = os.environ["SERVICE"].replace("-", "_")
    installed = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    folders = [installed / package, installed / "common"]
    command = [sys.executable, "-m", package, *sys.argv[1:]]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_stop(service)))  # the one that runs then
    service, seen = subprocess.Popen(command), modified(folders)
    while True:
        time.sleep(INTERVAL_S)
        now = modified(folders)
        if now != seen:
            sys.stderr.write("source changed: restarting\n")
            _stop(service)
            service, seen = subprocess.Popen(command), now


def _stop(service: subprocess.Popen[bytes]) -> int:
    service.terminate()
    try:
        return service.wait(STOP_S)
    except subprocess.TimeoutExpired:
        service.kill()
        return service.wait()


if __name__ == "__main__":
    sys.exit(main())
