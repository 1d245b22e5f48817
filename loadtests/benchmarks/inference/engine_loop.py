"""Calls the onnx engine in a loop, one thread a core, without a server.

    python engine_loop.py --texts FILE --at-once 1 --seconds 5

Prints texts a second and CPU milliseconds a text as JSON.
"""

import argparse
import itertools
import json
import threading
import time
from pathlib import Path

from inference.engines.factory import usable_cores
from inference.engines.onnx import OnnxEngine
from inference.models import bundle


def main() -> None:
    options = _options()
    loaded = bundle.load()
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    slices = [texts[start : start + options.at_once] for start in range(0, len(texts), options.at_once)]
    source = itertools.cycle(slices)
    threads = options.threads or usable_cores()
    engines = [OnnxEngine(loaded) for _ in range(threads)]
    counts = [0] * threads
    for engine in engines:
        engine.score(engine.encode(texts[:100]))
    cpu_s, started = time.process_time(), time.perf_counter()
    end = started + options.seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            batch = next(source)
            engines[number].score(engines[number].encode(batch))
            counts[number] += len(batch)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds, done = time.perf_counter() - started, sum(counts)
    cpu_ms = 1000 * (time.process_time() - cpu_s) / done
    print(json.dumps({"texts_per_s": done / seconds, "cpu_ms": cpu_ms}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="one text a line")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
