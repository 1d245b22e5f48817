"""`make bench`: runs every benchmark without results, one after the other, and writes the summary.

    make bench ARGS="[--again] [--only edge,metrics] [--gather]"

A benchmark is a package of this folder. It writes its results to .cache/bench/PART.json. Parts with
results do not run again, so an interrupted run resumes. Summary and plots go to docs/.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import results, summary

HERE: Final = Path(__file__).parent
FIRST: Final = ("baseline", "inference", "edge", "metrics", "analyst")


def main() -> int:
    options = _options()
    known = parts()
    chosen = [part for part in options.only.split(",") if part] or known
    if unknown := set(chosen) - set(known):
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = [] if options.gather else run(chosen, options.again)
    summary.write(known)
    for part in failed:
        print(f"{part} failed", file=sys.stderr)
    return 1 if failed else 0


def parts() -> list[str]:
    """Return every benchmark's name, in the order of the summary."""
    found = {file.parent.name for file in HERE.glob("*/__main__.py")}
    return [*(part for part in FIRST if part in found), *sorted(found - set(FIRST))]


def run(names: Sequence[str], again: bool) -> list[str]:
    """Run the parts without results. Return those that failed."""
    started, failed = time.monotonic(), []
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for number, part in enumerate(names, 1):
        if results.load(part) and not again:
            print(f"== {part}: already done (use --again to repeat it)", flush=True)
            continue
        print(f"== {part}: {number} of {len(names)}, {time.monotonic() - started:.0f} s so far", flush=True)
        results.drop(part)
        if subprocess.run([sys.executable, "-m", f"{HERE.name}.{part}"], env=environment, check=False).returncode:
            results.drop(part)
            failed.append(part)
    return failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--again", action="store_true", help="also run parts that are done")
    parser.add_argument("--only", default="", help="only these parts, separated by commas")
    parser.add_argument("--gather", action="store_true", help="only write the summary of what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
