"""Compare the edge with other proxies in one run: requests per second, CPU per request and latency.

    make bench ARGS="--only edge", or with options:
    PYTHONPATH=loadtests .venv/bin/python -m benchmarks.edge [--rounds 5] [--seconds 4] [--baseline COMMIT]

Every server is one process on this machine, in front of the same upstream. 20,000 clients by `X-Forwarded-For` send
POST /predict over kept connections, and none is refused. Then the same edges answer a flood of clients that are over
their limit. Rounds are interleaved.
"""

import argparse
from typing import Final

from benchmarks import results
from benchmarks.edge import contenders
from benchmarks.edge.contenders import CHECK, ENVOY, HAPROXY, NGINX, OURS, PLAIN, UPSTREAM, Flooded
from benchmarks.edge.edges import at_commit, working_tree
from benchmarks.edge.flood import Flood, block_clients, flood
from benchmarks.edge.rounds import PACED_RATE, Contender, measure
from benchmarks.edge.testbed import Testbed, testbed

BASELINE: Final = "79512ed"  # the last edge with its own listener instead of aiohttp's


def main() -> None:
    options = _options()
    with testbed() as bed:
        pairs, compared, absent = _start(bed, options.baseline)
        floods: dict[str, list[Flood]] = {pair.proxying.label: [] for pair in pairs}
        for pair in pairs:
            block_clients(bed, pair.blocking, options.connections)
        for number in range(options.rounds):
            for contender in compared[:: -1 if number % 2 else 1]:
                contender.rounds.append(measure(bed, contender, options.seconds, options.connections))
            for pair in pairs:
                found = flood(bed, pair.blocking, seconds=options.seconds / 2, connections=options.connections)
                floods[pair.proxying.label].append(found)
            print(f"round {number + 1} of {options.rounds} done", flush=True)
        _check_exact(compared)
    results.save("edge", _measures(compared, pairs, floods), contenders.versions(), absent)


def _start(bed: Testbed, baseline: str) -> tuple[list[Flooded], list[Contender], list[str]]:
    """Start every server. The last value names those that are not available."""
    compared = [*contenders.start_peers(bed)]
    ours = working_tree()
    older = at_commit(baseline, bed.folder) if baseline else None
    pairs = [*contenders.start_edges(bed, [ours, *([older] if older else [])])]
    compared += [pair.proxying for pair in pairs]
    checked = contenders.start_checked_nginx(bed, ours)
    compared += [checked] if checked else []
    wanted = [UPSTREAM, PLAIN, NGINX, HAPROXY, ENVOY, CHECK, *([f"{OURS} at {baseline}"] if baseline else [])]
    labels = {contender.label for contender in compared}
    return pairs, compared, [label for label in wanted if label not in labels]


def _check_exact(compared: list[Contender]) -> None:
    """Fail if an edge decided without PostgreSQL: local decisions are faster, and not exact."""
    for contender in compared:
        if contender.edge is not None and set(contender.edge.decision_sources()) != {("allowed", "store")}:
            raise SystemExit(f"{contender.label} did not decide exactly: {contender.edge.decision_sources()}")


def _measures(compared: list[Contender], pairs: list[Flooded], floods: dict[str, list[Flood]]) -> list[results.Measure]:
    def rounds(value: str) -> dict[str, list[float]]:
        return {contender.label: [getattr(one, value) for one in contender.rounds] for contender in compared}

    by_edges = {one.label: [found.postgres_us for found in one.rounds] for one in compared if one.edge}
    refusals = {f"{label}, a refusal": [flood.cpu_us for flood in found] for label, found in floods.items()}
    proxied = {
        f"{pair.proxying.label}, a proxied request": [one.cpu_us for one in pair.proxying.rounds] for pair in pairs
    }
    return [
        results.Measure("requests/s", "more", OURS, rounds("per_second")),
        results.Measure("CPU µs per request", "less", OURS, rounds("cpu_us"), {PLAIN: 1 / 0.9}),
        results.Measure("PostgreSQL's CPU µs per request", "less", OURS, by_edges),
        results.Measure("p99 ms, 64 connections", "less", OURS, rounds("p99_ms")),
        results.Measure(f"p50 ms at {PACED_RATE:g}/s", "less", OURS, rounds("paced_p50_ms")),
        results.Measure("CPU µs per refusal", "less", f"{OURS}, a refusal", refusals | proxied),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--baseline", default=BASELINE, metavar="COMMIT", help="an earlier edge; empty for none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
