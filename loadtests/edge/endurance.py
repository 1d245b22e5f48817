"""Starts an edge of its own and shows what it endures: slow clients, idle ones, and PostgreSQL away under load.

python loadtests/edge/endurance.py [--outage 20]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started

HERE = Path(__file__).parent


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def store_is_up(ops_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/metrics", timeout=1) as answer:
            return b"sluice_edge_store_up 1.0" in answer.read()
    except OSError:
        return False


def wait_up(ops_port: int) -> float:
    """Seconds until limits are exact."""
    started = time.monotonic()
    while not store_is_up(ops_port):
        time.sleep(0.05)
    return time.monotonic() - started


def outage(server: Postgres, port: int, ops_port: int, seconds: float) -> dict[str, object]:
    """Stop PostgreSQL in the middle of a steady load."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(seconds + 10), "16", "20000", "300"]
    load = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(4)
    server.stop()
    time.sleep(seconds)
    server.start()
    recovered_s = wait_up(ops_port)
    return {"recovered after, s": round(recovered_s, 2), **json.loads(load.communicate()[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the edge endures.")
    parser.add_argument("--outage", type=float, default=20.0, help="seconds without PostgreSQL")
    options = parser.parse_args()
    ports = free_ports(0, 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(started(Postgres(folder / "postgres", next(ports))))
        migrate("edge_limiter", server.url())
        upstream, port, ops_port = (next(ports) for _ in range(3))
        stack.enter_context(running([sys.executable, str(HERE / "upstream.py"), str(upstream)], {}))
        environment = {
            "DATABASE_URL": server.url(),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(next(ports)),
            "EVENTS_HASH_KEY": "key",
            "EVENTS_JOURNAL_DIR": str(folder / "journal"),
            "EDGE_PORT": str(port),
            "EDGE_OPS_PORT": str(ops_port),
            "EDGE_UPSTREAM_INFERENCE": f"http://127.0.0.1:{upstream}",
            "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
            "EDGE_RATE_LIMIT": "1000",
        }
        stack.enter_context(running([sys.executable, "-m", "edge_limiter"], environment))
        wait_up(ops_port)
        crowd = json.loads(subprocess.check_output([sys.executable, str(HERE / "crowd.py"), str(port)]))
        print(json.dumps({**crowd, "outage": outage(server, port, ops_port, options.outage)}, indent=2))


if __name__ == "__main__":
    main()
