"""The whole system beside what one would write in an afternoon (peers/baseline_server.py), in one run.

    python loadtests/bench_baseline.py [--rounds 5] [--seconds 8]

Both classify with the bundled model (ours quantised, the baseline's float32 by `transformers`), limit by address in
PostgreSQL and store every prediction there; our result cache is off. The generator runs on the same machine. Rounds
are interleaved. Prints Markdown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import results
import sentences
from bench_inference import generate
from own_system import own_system
from peers import install
from peers.servers import Server

from launcher.ports import free_ports
from launcher.postgres import Postgres

HERE: Final = Path(__file__).parent
PEERS: Final = ("fastapi", "uvicorn", "sqlalchemy", "transformers", "torch")
OURS, BASELINE = "sluice", "an afternoon's service"
WANTED_RATE, WANTED_P99 = 8.0, 5.0
SHARES: Final = (0.9, 1.0)  # of the baseline's peak
ADDRESSES: Final = 20_000
SETUPS: Final = ((1, 2), (1, 1), (2, 1))  # processes, threads of torch in each
CROWDS: Final = (8, 32)
REPORTS_A_SECOND: Final = 200

Found = dict[str, list[dict[str, Any]]]


def main() -> None:
    options = _options()
    for peer in ("pipeline", "baseline"):  # the first also writes the model
        install.install(peer)
    install.make_model()
    with ExitStack() as stopped:
        place = Path(stopped.enter_context(tempfile.TemporaryDirectory()))
        texts = place / "texts.txt"
        texts.write_text("\n".join(sentences.generated(ADDRESSES)), encoding="utf-8")
        postgres = Postgres(place / "postgres", next(free_ports()))
        postgres.start()
        stopped.callback(postgres.stop)
        _say("choosing how the baseline is fastest")
        setup, crowd = _fastest(place, postgres, texts, options.seconds / 2)
        servers = {BASELINE: stopped.enter_context(_baseline(place, postgres, *setup))}
        system = stopped.enter_context(own_system(place / "sluice", INFERENCE_CACHE_BYTES="0"))
        servers[OURS] = Server(OURS, [], system.port_base, {})
        measures = [*_predictions(servers, texts, crowd, options), *_reports(servers, place, options)]
    results.save("baseline", measures, install.versions("baseline", PEERS))
    _print(measures, setup, crowd)


def _predictions(
    servers: dict[str, Server], texts: Path, crowd: int, options: argparse.Namespace
) -> Iterator[results.Measure]:
    closed = _rounds(servers, texts, options, f"{crowd} connections", connections=crowd)
    rates = {name: [_rate(one) for one in found] for name, found in closed.items()}
    yield results.Measure(f"predictions/s, {crowd} connections", "more", OURS, rates, {BASELINE: WANTED_RATE})
    what = f"p99 ms, {crowd} connections, as fast as each answers"
    yield results.Measure(what, "less", OURS, _p99(closed))
    peak = statistics.median(rates[BASELINE])
    for share in SHARES:
        what = f"p99 ms at {share:.0%} of the baseline's peak"
        given = {"connections": 512, "rate": share * peak, "settle": 2}
        found = _rounds(servers, texts, options, f"{share * peak:.0f} requests/s", **given)
        yield results.Measure(what, "less", OURS, _p99(found), {BASELINE: WANTED_P99} if share == 1 else {})


def _reports(servers: dict[str, Server], place: Path, options: argparse.Namespace) -> Iterator[results.Measure]:
    """Cached ones: a dictionary in the same process cannot be beaten by a hop and a look into Redis."""
    windows = place / "windows.txt"
    windows.write_text("\n".join(["1h"] * ADDRESSES))
    shape = {"path": "/analyze/performance", "body": '{"window": @}'}
    given = {"connections": 32, "rate": REPORTS_A_SECOND, "settle": 2}
    found = _rounds(servers, windows, options, f"{REPORTS_A_SECOND} reports/s", **shape, **given)
    what = f"p50 ms of cached reports, {REPORTS_A_SECOND}/s"
    yield results.Measure(what, "less", OURS, {name: _each(rounds, "p50_ms") for name, rounds in found.items()})


def _rounds(servers: dict[str, Server], texts: Path, options: argparse.Namespace, what: str, **given: Any) -> Found:
    found: Found = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, server in servers.items():
            one = generate(server, texts, seconds=options.seconds, skip=1000 * number, addresses=ADDRESSES, **given)
            _check(name, one)
            found[name].append(one)
        _say(f"{what}: round {number + 1} of {options.rounds}")
    return found


def _check(name: str, one: dict[str, Any]) -> None:
    if set(one["statuses"]) != {"200"}:
        raise SystemExit(f"{name} answered {one['statuses']}")


def _fastest(place: Path, postgres: Postgres, texts: Path, seconds: float) -> tuple[tuple[int, int], int]:
    """The set-up and the number of connections with which the baseline answers most."""
    rates: dict[tuple[tuple[int, int], int], float] = {}
    for setup in SETUPS:
        with _baseline(place, postgres, *setup) as server:
            for crowd in CROWDS:
                generate(server, texts, seconds=seconds / 2, connections=crowd, addresses=ADDRESSES)
                found = generate(server, texts, seconds=seconds, connections=crowd, addresses=ADDRESSES)
                rates[setup, crowd] = _rate(found)
                _say(f"  {setup[0]} processes of {setup[1]} threads, {crowd} connections: {_rate(found):.0f}/s")
    return max(rates, key=rates.__getitem__)


@contextmanager
def _baseline(place: Path, postgres: Postgres, processes: int, threads: int) -> Iterator[Server]:
    port = next(free_ports())
    python = str(install.python_of("baseline"))
    environment = {
        "DATABASE_URL": postgres.url().replace("postgresql://", "postgresql+asyncpg://"),
        "MODEL": str(install.MODEL),
        "THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    program = str(HERE / "peers" / "baseline_server.py")
    subprocess.run([python, program], env=os.environ | environment, check=True)
    argv = [python, "-m", "uvicorn", "baseline_server:app", "--app-dir", str(HERE / "peers"), "--port", str(port)]
    argv += ["--workers", str(processes), "--no-access-log", "--log-level", "error"]
    argv += ["--timeout-keep-alive", "75"]  # it closes connections after 5 s otherwise, and the generator keeps them
    argv += ["--proxy-headers", "--forwarded-allow-ips", "127.0.0.1"]
    server = Server(BASELINE, argv, port, environment)
    try:
        server.start(place / "baseline.log")
        yield server
    finally:
        server.stop()


def _rate(one: dict[str, Any]) -> float:
    return float(one["statuses"].get("200", {}).get("count", 0)) / float(one["seconds"])


def _p99(found: Found) -> dict[str, list[float]]:
    return {name: _each(rounds, "p99_ms") for name, rounds in found.items()}


def _each(rounds: Sequence[dict[str, Any]], what: str) -> list[float]:
    return [float(one["statuses"]["200"][what]) for one in rounds]


def _print(measures: Sequence[results.Measure], setup: tuple[int, int], crowd: int) -> None:
    found, rounds = results.machine(), len(measures[0].rounds[OURS])
    print(
        f"\n{found['cpu']}, {found['cores']} cores, Python {found['versions']['Python']}, load average "
        f"{psutil.getloadavg()[2]:.1f} over the run. The baseline was fastest as {setup[0]} processes of {setup[1]} "
        f"threads with {crowd} connections. Medians of {rounds} rounds:\n"
    )
    print(f"| | {OURS} | rounds | {BASELINE} | rounds | {OURS} is better by | wanted |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for one in measures:
        cells = [cell for name in (OURS, BASELINE) for cell in _cells(one.rounds[name])]
        ours, theirs = (statistics.median(one.rounds[name]) for name in (OURS, BASELINE))
        factor = ours / theirs if one.better == "more" else theirs / ours
        wanted = f"{one.wanted[BASELINE]:.0f} ×" if one.wanted else ""
        print(f"| {one.what} | {' | '.join(cells)} | {factor:.1f} × | {wanted} |")


def _cells(rounds: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(rounds):,.1f}", f"{min(rounds):,.1f}…{max(rounds):,.1f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    return parser.parse_args()


if __name__ == "__main__":
    main()
