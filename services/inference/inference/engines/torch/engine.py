"""Owns the engine for any transformers classifier: float32 on the CPU, float16 on a GPU; refuses a GPU that drifts.

Needs the packages of `sluice-inference[torch]`; whoever imports this module says so when they are missing.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from inference.engines.base import Encoded, ModelCard, ModelError
from inference.engines.torch.cuda_graphs import CudaForward
from inference.engines.torch.forward import CpuForward, Forward, Row
from inference.engines.torch.models import ADAPTER, BUNDLED, Loaded, load
from inference.engines.torch.shapes import ShapeGrid

_GPU_PIECE_TOKENS: Final = 16_384  # fills the GPU; more would only add latency
_PROBES: Final = ("good", "neither good nor bad, but long enough to be seen twice", "a very long story indeed " * 12)
_MAX_PADDING: Final = 1e-3  # what rounding to float32 moves stays below 1e-4
_MAX_DRIFT: Final = 0.02  # what rounding to float16 moves stays below 0.005


class TorchEngine:
    """`device` is `auto` (a GPU if there is one), `cpu` or `cuda`. Raises ModelError.

    `threads` is how many cores a pass on the CPU may take; it holds for the whole process.
    """

    def __init__(self, source: str = BUNDLED, device: str = "auto", threads: int = 1, adapter: Path = ADAPTER) -> None:
        torch.set_num_threads(threads)
        chosen = _choose(device)
        loaded = load(source, adapter)
        self._tokenizer = loaded.tokenizer
        self._forward = _create_forward(loaded, chosen)
        self._card = replace(loaded.card, device=_name(chosen))

    @property
    def card(self) -> ModelCard:
        return self._card

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [self._encoded(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def score(self, batch: Sequence[Encoded]) -> list[Row]:
        return self._forward.run([text.ids for text in batch])

    def close(self) -> None:
        self._forward.close()

    def _encoded(self, encoding: Any) -> Encoded:
        ids = tuple(encoding.ids)
        return Encoded(ids, len(ids) == self._card.max_tokens and bool(encoding.overflowing))


def _choose(device: str) -> Any:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type not in {"cpu", "cuda"}:
        raise ModelError("the torch engine runs on cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("this torch sees no CUDA GPU: set the device to cpu or auto")
    return chosen


def _name(device: Any) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def _create_forward(loaded: Loaded, device: Any) -> Forward:
    on_cpu = CpuForward(loaded.model, loaded.pad_id, loaded.independent_labels)
    probes = [encoding.ids for encoding in loaded.tokenizer.encode_batch(list(_PROBES))]
    expected = _scored_alone_and_together(on_cpu, probes)  # before the model moves to the GPU
    if device.type == "cpu":
        return on_cpu
    grid = ShapeGrid(loaded.card.max_tokens, _GPU_PIECE_TOKENS)
    forward = CudaForward(loaded.model, device, grid, len(loaded.card.labels), loaded.pad_id, loaded.independent_labels)
    forward.warm_up()
    check_drift(expected, forward.run(probes))
    return forward


def _scored_alone_and_together(forward: Forward, probes: Sequence[Sequence[int]]) -> Sequence[Row]:
    """Some architectures read the padding behind a text. Raises ModelError."""
    try:
        alone = [row for probe in probes for row in forward.run([probe])]
        together = forward.run(probes)
    except Exception as error:
        raise ModelError(f"the model cannot score a batch: {error}") from error
    if not _alike(alone, together, _MAX_PADDING):
        raise ModelError("the model's scores are no numbers, or depend on the padding behind a text")
    return alone


def check_drift(expected: Sequence[Row], rows: Sequence[Row]) -> None:
    """Some models leave float16's range: their scores are not a number, or another one. Raises ModelError."""
    if not _alike(expected, rows, _MAX_DRIFT):
        raise ModelError("the model scores differently in float16 on this GPU: set the device to cpu")


def _alike(expected: Sequence[Row], rows: Sequence[Row], tolerance: float) -> bool:
    pairs = [pair for want, have in zip(expected, rows, strict=True) for pair in zip(want, have, strict=True)]
    return all(abs(a - b) <= tolerance for a, b in pairs)  # False for what is not a number
