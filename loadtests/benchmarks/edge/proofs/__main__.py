"""Prove what the edge promises on live processes; exit with 1 if a promise is broken.

    make prove-edge ARGS="[--only bursts,aggregates,outages,slow,gateway]"

Each subject starts its own stores, edges and clients on loopback and stops them. All take about five minutes.
"""

import argparse
import sys
from typing import Final

from benchmarks.edge.proofs import aggregates, bursts, gateway, outages, slow_clients

SUBJECTS: Final = {
    "bursts": bursts.prove,
    "aggregates": aggregates.prove,
    "outages": outages.prove,
    "slow": slow_clients.prove,
    "gateway": gateway.prove,
}


def main() -> int:
    chosen = _options().only
    broken = 0
    for subject in chosen:
        for claim in SUBJECTS[subject]():
            broken += not claim.holds
            verdict = "holds " if claim.holds else "BROKEN"
            print(f"{verdict}  {subject}: {claim.text}\n        found: {claim.found}", flush=True)
    print(f"\n{f'{broken} BROKEN' if broken else 'ALL HOLD'}")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=_subjects, default=[*SUBJECTS], help="comma-separated subjects")
    return parser.parse_args()


def _subjects(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SUBJECTS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; one of {', '.join(SUBJECTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
