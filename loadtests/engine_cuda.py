"""Measures the torch engine on a GPU: the pass alone, eager and from graphs, the tokenizer alone, and both together.

    python loadtests/engine_cuda.py --texts ../shared/data/sst2_dev.tsv [--model bundled]

`--texts` has one text a line, after a tab if there is one. It prints Markdown tables, and wants the GPU and the
cores for itself.
"""

import argparse
import functools
import os
import platform
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import sentences
import tokenizers
import torch
import transformers

from inference.engines.base import Encoded
from inference.engines.torch.engine import TorchEngine
from inference.engines.torch.models import Loaded, load

BATCHES: Final = (1, 8, 32, 128, 512)
TOKENS: Final = range(20, 33)  # of the texts that the pass alone is measured with
ROUNDS: Final = 5
ROUND_S: Final = 0.4
SLICE: Final = 512
STREAM: Final = 100_000
PLANS: Final = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2))  # threads that tokenise, engines that score


class Eager:
    """What the graphs are compared with: a transformers model called as its documentation does, no graph."""

    def __init__(self, loaded: Loaded, dtype: Any) -> None:
        self._model = loaded.model.to("cuda", dtype)
        self._pad_id = loaded.pad_id

    def score(self, batch: Sequence[Encoded]) -> list[list[float]]:
        longest = max(text.tokens for text in batch)
        ids = torch.tensor([text.ids + (self._pad_id,) * (longest - text.tokens) for text in batch]).cuda()
        mask = torch.tensor([[1] * text.tokens + [0] * (longest - text.tokens) for text in batch]).cuda()
        with torch.inference_mode():
            rows: list[list[float]] = (
                self._model(input_ids=ids, attention_mask=mask).logits.float().softmax(-1).tolist()
            )
        return rows


def main() -> None:
    options = _options()
    texts = sentences.read(options.texts)
    _print_machine()
    started_s = time.perf_counter()
    engines = [TorchEngine(options.model, device="cuda")]
    print(f"\nready after {time.perf_counter() - started_s:.1f} s; {torch.cuda.memory_reserved() >> 20} MiB reserved")
    encoded = engines[0].encode(texts)
    print(f"{len(texts)} texts, {statistics.mean(text.tokens for text in encoded):.1f} tokens each in the mean")
    _print_agreement(engines[0], Eager(load(options.model), torch.float32), encoded[:2000])
    gpu = _print_gpu(engines[0], Eager(load(options.model), torch.float16), encoded)
    stream = random.Random(0).choices(texts, k=STREAM)
    tokenizer = _print_tokenizer(engines[0], stream)
    engines.append(TorchEngine(options.model, device="cuda"))
    _print_together(engines, stream, min(tokenizer, gpu))


def _print_machine() -> None:
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    )
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")


def _print_agreement(engine: TorchEngine, exact: Eager, batch: Sequence[Encoded]) -> None:
    """How far scores move with the neighbours, and from float32."""
    together = engine.score(batch)
    alone = [engine.score([text])[0] for text in batch]
    wanted = [exact.score([text])[0] for text in batch]
    flips = sum((a[0] > 0.5) != (b[0] > 0.5) for a, b in zip(together, wanted, strict=True))
    print(f"\nlargest move with the neighbours {_largest_move(together, alone):.5f}")
    print(f"largest move from float32 {_largest_move(together, wanted):.5f}, other labels {flips} of {len(batch)}")


def _print_gpu(engine: TorchEngine, eager: Eager, encoded: Sequence[Encoded]) -> float:
    """Token ids in, probabilities out. Returns the best rate of the graphs."""
    fitting = [text for text in encoded if text.tokens in TOKENS]
    print(f"\npass alone, {statistics.mean(text.tokens for text in fitting):.1f} tokens a text in the mean")
    print("\n| texts in a call | eager texts/s | graphs texts/s | ratio | graphs ms |\n|---:|---:|---:|---:|---:|")
    rates = [_print_batch(engine, eager, random.Random(size).choices(fitting, k=size)) for size in BATCHES]
    large = random.Random(0).choices(encoded, k=8 * BATCHES[-1])
    rates.append(_rate(lambda: engine.score(large), len(large)))
    print(f"\n{len(large)} texts of all lengths in one call: {rates[-1]:,.0f} texts/s")
    return max(rates)


def _print_batch(engine: TorchEngine, eager: Eager, batch: Sequence[Encoded]) -> float:
    slow = _rate(lambda: eager.score(batch), len(batch))
    fast = _rate(lambda: engine.score(batch), len(batch))
    print(f"| {len(batch)} | {slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} | {1000 * len(batch) / fast:.2f} |")
    return fast


def _print_tokenizer(engine: TorchEngine, stream: Sequence[str]) -> float:
    """Texts in, token ids out, `SLICE` at a time. Returns the best rate."""
    print("\n| threads that tokenise | texts/s |\n|---:|---:|")
    rates = []
    for count in (1, 2, 3, 4, 8):
        rates.append(len(stream) / _together(count, functools.partial(_encode, engine, _slices(stream))))
        print(f"| {count} | {rates[-1]:,.0f} |")
    return max(rates)


def _encode(engine: TorchEngine, slices: "queue.SimpleQueue[Sequence[str] | None]") -> None:
    for texts in iter(slices.get, None):
        engine.encode(texts)


def _print_together(engines: Sequence[TorchEngine], stream: Sequence[str], limit: float) -> None:
    print("\n| threads that tokenise | engines | texts/s | share of the slower part alone |\n|---:|---:|---:|---:|")
    for readers, scorers in PLANS:
        rate = statistics.median(_end_to_end(engines[:scorers], stream, readers) for _ in range(3))
        print(f"| {readers} | {scorers} | {rate:,.0f} | {rate / limit:.2f} |")


def _end_to_end(engines: Sequence[TorchEngine], stream: Sequence[str], readers: int) -> float:
    """Texts in, probabilities out: some threads tokenise, one thread scores for each engine."""
    slices = _slices(stream)
    read: queue.Queue[list[Encoded] | None] = queue.Queue(2 * len(engines))
    waiting = iter(engines)

    def tokenise() -> None:
        for texts in iter(slices.get, None):
            read.put(engines[0].encode(texts))

    def score() -> None:
        engine = next(waiting)
        for batch in iter(read.get, None):
            engine.score(batch)

    scorers = [threading.Thread(target=score) for _ in engines]
    started_s = time.perf_counter()
    for thread in scorers:
        thread.start()
    _together(readers, tokenise)
    for _ in scorers:
        read.put(None)
    for thread in scorers:
        thread.join()
    return len(stream) / (time.perf_counter() - started_s)


def _slices(stream: Sequence[str]) -> "queue.SimpleQueue[Sequence[str] | None]":
    """The stream in slices, then enough `None` for every thread."""
    slices: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
    for start in range(0, len(stream), SLICE):
        slices.put(stream[start : start + SLICE])
    for _ in range(16):
        slices.put(None)
    return slices


def _together(count: int, work: Callable[[], object]) -> float:
    """Seconds until `count` threads have done `work`."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started_s


def _rate(call: Callable[[], object], size: int) -> float:
    """Texts a second: the median of some rounds, after one that does not count."""
    return statistics.median(list(_rounds(call, size))[1:])


def _rounds(call: Callable[[], object], size: int) -> Iterator[float]:
    for _ in range(ROUNDS + 1):
        calls = 0
        started_s = time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < ROUND_S:
            call()
            calls += 1
        yield calls * size / elapsed_s


def _largest_move(have: Sequence[Sequence[float]], want: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for row, wanted in zip(have, want, strict=True) for a, b in zip(row, wanted, strict=True))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the torch engine on a GPU.")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    return parser.parse_args()


if __name__ == "__main__":
    main()
