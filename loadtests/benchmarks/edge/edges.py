"""Start our edge from the working tree or from an earlier commit, whose settings may differ."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.edge.testbed import START_TIMEOUT_S, Process, Testbed

ROOT: Final = Path(__file__).parents[3]
_PACKAGES: Final = {"services/edge-limiter": "edge_limiter", "libs/common": "common"}
_LIST_SETTINGS: Final = (
    "import json, edge_limiter; from edge_limiter.settings import EdgeSettings as S; "
    "print(json.dumps([edge_limiter.__file__, [name.upper() for name in S.model_fields]]))"
)


@dataclass(frozen=True, slots=True)
class EdgeVersion:
    """The edge's source at one commit, and the environment variables it accepts."""

    name: str
    import_path: str
    variables: frozenset[str]


@dataclass(frozen=True, slots=True)
class Edge:
    """A running edge."""

    process: Process
    port: int
    ops_port: int
    database: str

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.ops_port}"

    def decision_sources(self) -> Counter[tuple[str, str]]:
        """Decisions so far, by outcome and by what decided them (`store`, `local`, …)."""
        found: Counter[tuple[str, str]] = Counter()
        for line in self._metrics():
            if line.startswith("sluice_edge_decisions_total{"):
                labels = dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(","))
                found[labels["outcome"].strip('"'), labels["source"].strip('"')] += int(float(line.split()[-1]))
        return found

    def is_exact(self) -> bool:
        """Whether PostgreSQL decides for this edge now."""
        try:
            return "sluice_edge_store_up 1.0" in self._metrics()
        except OSError:
            return False

    def answers_checks(self) -> bool:
        """Whether this version has `GET /check` for other gateways."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/check",
            headers={"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/predict"},
        )
        try:
            with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            return False

    def _metrics(self) -> list[str]:
        with urllib.request.urlopen(f"{self.ops_url}/metrics", timeout=2) as response:
            text: str = response.read().decode()
        return text.splitlines()


def working_tree() -> EdgeVersion:
    return _version("working tree", ROOT)


def at_commit(commit: str, folder: Path) -> EdgeVersion | None:
    """Extract the edge and `common` of a commit below `folder`. None if this clone does not have the commit."""
    archive = subprocess.run(["git", "archive", commit, *_PACKAGES], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        return None
    place = folder / f"edge-{commit}"
    place.mkdir()
    subprocess.run(["tar", "-x", "-C", str(place)], input=archive.stdout, check=True)
    return _version(commit, place)


def _version(name: str, root: Path) -> EdgeVersion:
    import_path = ":".join(str(root / package) for package in _PACKAGES)
    command = [sys.executable, "-c", _LIST_SETTINGS]
    output = subprocess.check_output(command, env={"PYTHONPATH": import_path}, cwd=root)
    file, variables = json.loads(output)
    assert Path(file).is_relative_to(root), f"{file} was imported instead of the edge below {root}"
    return EdgeVersion(name, import_path, frozenset(variables))


def create_database(testbed: Testbed, version: EdgeVersion, name: str) -> str:
    """Create and migrate a database with that version's own migrations; return its URL."""
    testbed.postgres.execute(f"CREATE DATABASE {name}")
    url = testbed.postgres.url(name)
    command = [sys.executable, "-m", "edge_limiter", "migrate"]
    environment = {"PYTHONPATH": version.import_path, "DATABASE_URL": url}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=120)
    return url


def start_edge(testbed: Testbed, version: EdgeVersion, database_url: str, **settings: str) -> Edge:
    """Start an edge that trusts X-Forwarded-For from this machine, and wait until its limits are exact.

    Settings that this version does not have are left out.
    """
    port, ops_port = next(testbed.ports), next(testbed.ports)
    wanted = {
        "DATABASE_URL": database_url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(next(testbed.ports)),  # nothing listens: rejections are not reported
        "EVENTS_HASH_KEY": "benchmark",
        "EVENTS_JOURNAL_DIR": str(testbed.folder / f"journal-{port}"),
        "EDGE_PORT": str(port),
        "EDGE_OPS_PORT": str(ops_port),
        **{f"EDGE_UPSTREAM_{name}": testbed.upstream_url for name in ("INFERENCE", "METRICS", "ANALYST")},
        "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "error",
        **settings,
    }
    environment = {name: value for name, value in wanted.items() if name in version.variables}
    environment["PYTHONPATH"] = version.import_path
    process = testbed.start([sys.executable, "-m", "edge_limiter"], port, **environment)
    edge = Edge(process, port, ops_port, database_url.rpartition("/")[2])
    wait_exact(edge)
    return edge


def wait_exact(edge: Edge, timeout_s: float = 60.0) -> float:
    """Wait until PostgreSQL decides; return the seconds that took."""
    started = time.monotonic()
    while not edge.is_exact():
        if time.monotonic() - started > timeout_s:
            raise SystemExit(f"the edge on port {edge.port} has had no store for {timeout_s:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - started
