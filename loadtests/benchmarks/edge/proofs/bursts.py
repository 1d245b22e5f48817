"""Two edges that have just started share one database while other programs keep every core busy."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from benchmarks.edge.edges import create_database, start_edge, working_tree
from benchmarks.edge.proofs.claims import LIMIT, Claim, burst
from benchmarks.edge.testbed import testbed

HOGS: Final = 4
BURSTS, REQUESTS = 20, 100
BURSTS_PER_PAIR: Final = 4  # an edge that has just started is slowest


def prove() -> Iterator[Claim]:
    found: list[Counter[int]] = []
    with testbed() as bed, _busy(HOGS):
        version = working_tree()
        database = create_database(bed, version, "bursts")
        addresses = [f"198.18.0.{number}" for number in range(1, BURSTS + 1)]
        for first in range(0, BURSTS, BURSTS_PER_PAIR):
            with ExitStack() as stack:
                edges = [start_edge(replace(bed, stack=stack), version, database) for _ in range(2)]
                urls = [f"http://127.0.0.1:{edge.port}" for edge in edges]
                found += [burst(urls, address, REQUESTS) for address in addresses[first : first + BURSTS_PER_PAIR]]
    yield Claim(
        f"with {HOGS} busy loops, {BURSTS} bursts of {REQUESTS} requests through two edges admit exactly {LIMIT} each",
        all(statuses == {200: LIMIT, 429: REQUESTS - LIMIT} for statuses in found),
        f"admitted {sorted(statuses[200] for statuses in found)}; other than 200 and 429: "
        f"{sum(count for statuses in found for status, count in statuses.items() if status not in (200, 429))}",
    )


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
