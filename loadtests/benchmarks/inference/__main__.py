"""Compares the inference service with alternatives, on one machine with the same texts and model.

    python -m benchmarks.inference [--texts FILE]

Rounds are interleaved; servers that are not measured are paused. `benchmarks/peers.py` installs the peers. The
generator runs on the same machine, and its share of a core is printed.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import sentences
from tokenizers import Tokenizer

from benchmarks import peers, results
from benchmarks.inference import servers
from benchmarks.inference.servers import Server
from benchmarks.results import Measure
from launcher.ports import free_ports
from launcher.testing import started
from launcher.valkey import Valkey

HERE: Final = Path(__file__).parent
LAYERS, WIDTH, INNER = 6, 384, 1536  # of the bundled model's encoder
LOOPS: Final = {"the engine in a loop, 1 text": 1, "the engine in a loop, 32 texts": 32}
DEADLINE_MS: Final = 1000
LIST: Final = 16
PACKAGES: Final = {  # packages whose versions are printed
    "pipeline": ("fastapi", "transformers", "torch"),
    "infinity": ("infinity-emb",),
    "litserve": ("litserve", "onnxruntime"),
}
TARGETS: Final = {"FastAPI + pipeline": 8.0, "Infinity, torch": 6.0, "LitServe, our session": 2.5}


def main() -> None:
    options = _options()
    with ExitStack() as open_until_end:
        place = Path(open_until_end.enter_context(tempfile.TemporaryDirectory()))
        texts = sentences.read(options.texts) if options.texts else sentences.generated(4000)
        file = place / "texts.txt"
        file.write_text("\n".join(texts), encoding="utf-8")
        for peer in ("pipeline", "infinity", "litserve"):
            peers.install(peer)
        peers.make_model()
        redis = open_until_end.enter_context(_redis(place))
        running = open_until_end.enter_context(_running(place, redis))
        measures, notes = _throughput(running, file, _gflop(texts), options)
        peak = statistics.median(measures[0].rounds[measures[0].ours])
        sluice = running[0]
        sluice.resume()
        measures += _latency(sluice, file, peak, options.seconds)
        measures += _overload(sluice, file, peak, 2 * options.seconds)
        measures += _invariance(sluice, texts[: options.invariance])
        sluice.stop()
        measures += _memory(place, file, redis, options.requests)
    results.save("inference", measures, _versions(), notes=notes)


def _versions() -> dict[str, str]:
    """Return the versions of the peers' packages."""
    return {name: found for peer in PACKAGES for name, found in peers.versions(peer, PACKAGES[peer]).items()}


@contextmanager
def _redis(place: Path) -> Iterator[dict[str, str]]:
    """Start a Valkey for our journal. Yields the variables that select it."""
    with started(Valkey(place / "valkey", next(free_ports()))) as valkey:
        yield {"REDIS_HOST": valkey.host, "REDIS_PORT": str(valkey.port), "REDIS_PASSWORD": valkey.password}


@contextmanager
def _running(place: Path, redis: dict[str, str]) -> Iterator[list[Server]]:
    """Start all servers, ours first, and pause each after its warm-up."""
    ports = free_ports()
    with ExitStack() as stopped:
        found = [servers.ours(next(ports), place, redis)]
        found += [make(next(ports)) for make in (servers.pipeline, servers.infinity, servers.litserve)]
        for server in found:
            stopped.callback(server.stop)
            server.start(place / f"{server.name.partition(' ')[0]}.log")
            server.pause()
        yield found


def _gflop(texts: Sequence[str]) -> float:
    """Return the multiplications and additions of the mean text, in thousand millions."""
    tokenizer = Tokenizer.from_file(str(servers.BUNDLED / "tokenizer.json"))
    tokens = [len(tokenizer.encode(text).ids) for text in texts]
    a_token = LAYERS * (8 * WIDTH * WIDTH + 4 * WIDTH * INNER)
    return statistics.mean(count * a_token + LAYERS * 4 * WIDTH * count * count for count in tokens) / 1e9


def _throughput(
    running: Sequence[Server], file: Path, gflop: float, options: argparse.Namespace
) -> tuple[list[Measure], list[str]]:
    """Return the requests of one text per second, and notes."""
    rates: dict[str, list[float]] = {name: [] for name in (*LOOPS, *(server.name for server in running))}
    cpus: dict[str, list[float]] = {server.name: [] for server in running}
    for server in running:
        with _resumed(server):
            generate(server, file, seconds=options.seconds / 2, connections=options.connections)
    for number in range(options.rounds):
        for name, at_once in LOOPS.items():
            rates[name].append(_loop(file, at_once, options.seconds))
        for server in running:
            with _resumed(server):
                found = generate(server, file, seconds=options.seconds, connections=options.connections, skip=number)
            rates[server.name].append(_rate(found, "200"))
            cpus[server.name].append(found["cpu"])
    peak = statistics.median(rates[running[0].name])
    limits = json.loads(_output([str(peers.python_of("pipeline")), str(HERE / "peak.py")]))
    shares = (f"{peak * gflop / limit:.2f} of what {kind} allows ({limit:.0f} GOP/s)" for kind, limit in limits.items())
    load = ", ".join(f"{name} {statistics.median(found):.2f}" for name, found in cpus.items())
    return [Measure("texts/s, one a request", "more", running[0].name, rates, TARGETS)], [
        f"By the float32 model's multiplications, inference reaches {' and '.join(shares)} on all cores.",
        f"The generator's share of a core: {load}.",
    ]


def _latency(sluice: Server, file: Path, peak: float, seconds: float) -> list[Measure]:
    def answers(what: str, **given: Any) -> list[float]:
        rounds = [generate(sluice, file, seconds=seconds, skip=number, **given) for number in range(3)]
        return [float(found["statuses"]["200"][what]) for found in rounds]

    alone = answers("p50_ms", connections=1)
    half = answers("p99_ms", connections=256, rate=peak / 2)
    what = "p99 ms at half the peak, beside 5 × one request at a time"
    return [results.against(what, "less", half, 5 * statistics.median(alone))]


def _overload(sluice: Server, file: Path, peak: float, seconds: float) -> Iterator[Measure]:
    """Measure overload with single texts, the hard case: each rejection costs the event loop a request."""
    lists = {"path": "/predict/batch", "body": '{"texts": [' + ", ".join("@" * LIST) + "]}"}
    for size, shape in ((1, {}), (LIST, lists)):
        given = {"settle": 2, "seconds": seconds, "connections": 2000, "rate": 3 * peak / size, **shape}
        header = f"X-Request-Timeout-Ms: {DEADLINE_MS}\r\n"
        rounds = [generate(sluice, file, header=header, skip=number, **given) for number in range(3)]
        load = f"at 3 × the peak, {size} texts a request" if size > 1 else "at 3 × the peak"
        goodput = [size * _rate(found, "200") for found in rounds]
        yield results.against(f"texts/s answered in time {load}", "more", goodput, 0.95 * peak)
        refused = [found["statuses"].get("503", {}).get("p95_ms", 0.0) for found in rounds]
        yield results.against(f"p95 ms of refusals {load}", "less", refused, 10.0)
        late = [100 * _count(found, "504") / max(1, _count(found, "200") + _count(found, "504")) for found in rounds]
        yield results.against(f"% admitted and late {load}", "less", late, 0.1)


def _invariance(sluice: Server, texts: Sequence[str]) -> list[Measure]:
    """Score each text alone, and three times in lists of 64 with different neighbours."""
    alone = {text: json.loads(sluice.ask(text)) for text in texts}
    moves, flips, chance = [0.0], 0, random.Random(0)
    for _ in range(3):
        order = chance.sample(list(alone), len(alone))
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            body = json.dumps({"texts": batch})
            for text, found in zip(batch, json.loads(sluice.send("/predict/batch", body))["predictions"], strict=True):
                flips += found["label"] != alone[text]["label"]
                moves += [abs(found["scores"][label] - alone[text]["scores"][label]) for label in found["scores"]]
    return [
        results.against("labels changed by other texts of the batch", "less", [flips], 0.0),
        results.against("largest change of a score by them", "less", [max(moves)], 0.005),
    ]


def _memory(place: Path, file: Path, redis: dict[str, str], requests: int) -> list[Measure]:
    """Measure the memory of a new server, before and after its first requests."""
    server = servers.ours(next(free_ports()), place / "fresh", redis)
    server.start(place / "fresh.log")
    try:
        assert server.process is not None
        service = psutil.Process(server.process.pid)
        processes = [service, *service.children(recursive=True)]
        sizes = []
        for count in (requests // 10, requests - requests // 10):
            generate(server, file, seconds=600, connections=64, requests=count)
            sizes.append(sum(process.memory_info().rss for process in processes) / (1 << 20))
        time.sleep(2)
        used_s, started = _cpu_s(processes), time.monotonic()
        time.sleep(5)
        idle = (_cpu_s(processes) - used_s) / (time.monotonic() - started)
    finally:
        server.stop()
    return [
        results.against(
            f"MiB resident after {requests:,} requests, beside 1.05 × that of a tenth",
            "less",
            sizes[1:],
            1.05 * sizes[0],
        ),
        results.against("% of a core when idle", "less", [100 * idle], 1.0),
    ]


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def generate(server: Server, file: Path, **given: Any) -> dict[str, Any]:
    """Run the generator against `server`; see its options."""
    argv = [sys.executable, str(HERE.parent / "generator.py"), "--texts", str(file)]
    chosen = {"port": server.port, "path": server.path, "body": server.body, **given}
    for name, value in chosen.items():
        argv += [f"--{name}", str(value)]
    found: dict[str, Any] = json.loads(_output(argv))
    return found


@contextmanager
def _resumed(server: Server) -> Iterator[None]:
    server.resume()
    try:
        yield
    finally:
        server.pause()


def _loop(file: Path, at_once: int, seconds: float) -> float:
    argv = [sys.executable, str(HERE / "engine_loop.py"), "--texts", str(file)]
    return float(json.loads(_output([*argv, "--at-once", str(at_once), "--seconds", str(seconds)]))["texts_per_s"])


def _rate(found: dict[str, Any], status: str) -> float:
    return _count(found, status) / float(found["seconds"])


def _count(found: dict[str, Any], status: str) -> int:
    return int(found["statuses"].get(status, {}).get("count", 0))


def _output(argv: list[str]) -> str:
    return subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | servers.NO_SPINNING
    ).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, help="real texts, one a line (default: generated ones)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--invariance", type=int, default=256, help="texts in the batch invariance check")
    parser.add_argument("--requests", type=int, default=100_000, help="requests in the memory check")
    return parser.parse_args()


if __name__ == "__main__":
    main()
