"""Compares the whole system with a simple service written in an afternoon (server.py), in one run.

    python -m benchmarks.baseline [--rounds 5] [--seconds 8]

Both classify with the bundled model (ours quantised, the baseline's float32 by `transformers`), limit by address in
PostgreSQL and store every prediction there; our result cache is off. Each runs with the number of
connections, of those tried, at which it is fastest. The generator runs on the same machine. Rounds are interleaved.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import sentences
from own_system import own_system

from benchmarks import peers, results
from benchmarks.inference.__main__ import generate
from benchmarks.inference.servers import Server
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import started

HERE: Final = Path(__file__).parent
PEERS: Final = ("fastapi", "uvicorn", "sqlalchemy", "transformers", "torch")
OURS, BASELINE = "sluice", "an afternoon's service"
WANTED_RATE, WANTED_P99 = 8.0, 5.0
SHARES: Final = (0.9, 1.0)  # shares of the baseline's peak
ADDRESSES: Final = 20_000
SETUPS: Final = ((1, 2), (1, 1), (2, 1))  # processes, threads of torch in each
CROWDS: Final = (8, 32)
REPORTS_A_SECOND: Final = 200

Found = dict[str, list[dict[str, Any]]]


def main() -> None:
    options = _options()
    for peer in ("pipeline", "baseline"):  # `pipeline` also writes the model
        peers.install(peer)
    peers.make_model()
    with ExitStack() as stopped:
        place = Path(stopped.enter_context(tempfile.TemporaryDirectory()))
        texts = place / "texts.txt"
        texts.write_text("\n".join(sentences.generated(ADDRESSES)), encoding="utf-8")
        postgres = stopped.enter_context(started(Postgres(place / "postgres", next(free_ports()))))
        _say("choosing how the baseline is fastest")
        setup = _fastest(place, postgres, texts, options.seconds / 2)
        servers = {BASELINE: stopped.enter_context(_baseline(place, postgres, *setup))}
        system = stopped.enter_context(own_system(place / "sluice", INFERENCE_CACHE_BYTES="0"))
        servers[OURS] = Server(OURS, [], system.port_base, {})
        _say("choosing how many connections each answers fastest")
        crowds = {name: _crowd(server, texts, options.seconds / 2) for name, server in servers.items()}
        measures = [*_predictions(servers, texts, crowds, options), *_reports(servers, place, options)]
    note = (
        f"The baseline was fastest as {setup[0]} processes of {setup[1]} threads, with {crowds[BASELINE]} connections."
    )
    results.save("baseline", measures, peers.versions("baseline", PEERS), notes=[note])


def _predictions(
    servers: dict[str, Server], texts: Path, crowds: Mapping[str, int], options: argparse.Namespace
) -> Iterator[results.Measure]:
    closed = _rounds(servers, texts, options, "as fast as each answers", crowds)
    rates = {name: [_rate(one) for one in found] for name, found in closed.items()}
    yield results.Measure("predictions/s, as fast as each answers", "more", OURS, rates, {BASELINE: WANTED_RATE})
    yield results.Measure("p99 ms, as fast as each answers", "less", OURS, _p99(closed))
    peak = statistics.median(rates[BASELINE])
    for share in SHARES:
        what = f"p99 ms at {share:.0%} of the baseline's peak"
        said, given = f"{share * peak:.0f} requests/s", {"rate": share * peak, "settle": 2}
        found = _rounds(servers, texts, options, said, dict.fromkeys(servers, 512), **given)
        yield results.Measure(what, "less", OURS, _p99(found), {BASELINE: WANTED_P99} if share == 1 else {})


def _reports(servers: dict[str, Server], place: Path, options: argparse.Namespace) -> Iterator[results.Measure]:
    """Measure cached reports. A dictionary in the process is faster than a proxy and Redis."""
    windows = place / "windows.txt"
    windows.write_text("\n".join(["1h"] * ADDRESSES))
    shape = {"path": "/analyze/performance", "body": '{"window": @}'}
    given = {"rate": REPORTS_A_SECOND, "settle": 2}
    said = f"{REPORTS_A_SECOND} reports/s"
    found = _rounds(servers, windows, options, said, dict.fromkeys(servers, 32), **shape, **given)
    what = f"p50 ms of cached reports, {REPORTS_A_SECOND}/s"
    yield results.Measure(what, "less", OURS, {name: _each(rounds, "p50_ms") for name, rounds in found.items()})


def _rounds(
    servers: dict[str, Server],
    texts: Path,
    options: argparse.Namespace,
    what: str,
    crowds: Mapping[str, int],
    **given: Any,
) -> Found:
    found: Found = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, server in servers.items():
            chosen = {"connections": crowds[name], "skip": 1000 * number, **given}
            one = generate(server, texts, seconds=options.seconds, addresses=ADDRESSES, **chosen)
            _check(name, one)
            found[name].append(one)
        _say(f"{what}: round {number + 1} of {options.rounds}")
    return found


def _check(name: str, one: dict[str, Any]) -> None:
    if set(one["statuses"]) != {"200"}:
        raise SystemExit(f"{name} answered {one['statuses']}")


def _fastest(place: Path, postgres: Postgres, texts: Path, seconds: float) -> tuple[int, int]:
    """Return the baseline's fastest set-up."""
    rates: dict[tuple[int, int], float] = {}
    for setup in SETUPS:
        _say(f"  {setup[0]} processes of {setup[1]} threads")
        with _baseline(place, postgres, *setup) as server:
            rates[setup] = max(_rates(server, texts, seconds).values())
    return max(rates, key=rates.__getitem__)


def _crowd(server: Server, texts: Path, seconds: float) -> int:
    """Return the number of connections at which a server is fastest."""
    rates = _rates(server, texts, seconds)
    return max(rates, key=rates.__getitem__)


def _rates(server: Server, texts: Path, seconds: float) -> dict[int, float]:
    """Return requests per second by number of connections, after a warm-up."""
    rates: dict[int, float] = {}
    for crowd in CROWDS:
        generate(server, texts, seconds=seconds / 2, connections=crowd, addresses=ADDRESSES)
        rates[crowd] = _rate(generate(server, texts, seconds=seconds, connections=crowd, addresses=ADDRESSES))
        _say(f"    {server.name}, {crowd} connections: {rates[crowd]:.0f}/s")
    return rates


@contextmanager
def _baseline(place: Path, postgres: Postgres, processes: int, threads: int) -> Iterator[Server]:
    port = next(free_ports())
    python = str(peers.python_of("baseline"))
    environment = {
        "DATABASE_URL": postgres.url().replace("postgresql://", "postgresql+asyncpg://"),
        "MODEL": str(peers.MODEL),
        "THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    program = str(HERE / "server.py")
    subprocess.run([python, program], env=os.environ | environment, check=True)
    argv = [python, "-m", "uvicorn", "server:app", "--app-dir", str(HERE), "--port", str(port)]
    argv += ["--workers", str(processes), "--no-access-log", "--log-level", "error"]
    argv += ["--timeout-keep-alive", "75"]  # the default of 5 s would close the generator's connections
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each measurement")
    return parser.parse_args()


if __name__ == "__main__":
    main()
