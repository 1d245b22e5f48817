"""Owns the pass on one GPU: a CUDA graph per shape, recorded once and replayed; knows no tokenizer and no labels.

At small batches a GPU waits for the launches of some hundred kernels; a graph is one launch. Input and output cross
through two pinned buffers, so the next piece is prepared while one runs. All work of an object is on one stream.
"""

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import structlog
import torch

from inference.engines.torch.forward import Row, probabilities
from inference.engines.torch.shapes import MAX_ROWS, Shape, ShapeGrid

log = structlog.get_logger()

_SLOTS: Final = 2
_WARM_LENGTH: Final = 128  # longer shapes are rare, and recorded when they first come
_RECORDING: Final = threading.Lock()  # engines of one process record one after another


class CudaForward:
    """float16. Scores move by up to 5e-3 with the shape a text is run in."""

    def __init__(
        self,
        model: Any,
        device: Any,
        grid: ShapeGrid,
        labels: int,
        pad_id: int,
        independent_labels: bool,
        use_graphs: bool = True,
    ) -> None:
        self._grid = grid
        self._pad_id = pad_id
        self._independent_labels = independent_labels
        self._use_graphs = use_graphs
        self._graphs: dict[Shape, tuple[Any, Any]] = {}
        self._stream = torch.cuda.Stream(device)
        with torch.cuda.stream(self._stream):
            self._model = model.to(device, torch.float16)
            self._input = torch.zeros(grid.max_tokens + MAX_ROWS, dtype=torch.int32, device=device)
            self._pool = torch.cuda.graph_pool_handle()
        self._slots = [_Slot(grid.max_tokens + MAX_ROWS, labels) for _ in range(_SLOTS)]

    @property
    def recorded(self) -> int:
        """Shapes recorded so far; stays 0 for a model that can't be."""
        return len(self._graphs)

    def warm_up(self) -> None:
        """Record the common shapes, the largest first: the others reuse its memory."""
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for shape in self._grid.shapes(_WARM_LENGTH):
                self._replay(shape)
        self._stream.synchronize()

    def run(self, texts: Sequence[Sequence[int]]) -> list[Row]:
        rows: list[Row] = [()] * len(texts)
        slots = itertools.cycle(self._slots)
        flying: deque[tuple[_Slot, tuple[int, ...]]] = deque()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for shape, indices in self._grid.cut([len(text) for text in texts]):
                if len(flying) == _SLOTS:
                    _land(*flying.popleft(), rows)
                slot = next(slots)
                self._launch(slot, shape, [texts[index] for index in indices])
                flying.append((slot, indices))
            for slot, indices in flying:
                _land(slot, indices, rows)
        return rows

    def close(self) -> None:
        self._graphs.clear()
        del self._model
        torch.cuda.empty_cache()

    def _launch(self, slot: "_Slot", shape: Shape, texts: Sequence[Sequence[int]]) -> None:
        slot.done.synchronize()  # a run that raised may have left it in flight
        used = slot.fill(shape, texts, self._pad_id)
        self._input[:used].copy_(slot.input[:used], non_blocking=True)
        output = self._replay(shape)
        slot.output[: shape.rows].copy_(output, non_blocking=True)
        slot.done.record(self._stream)

    def _replay(self, shape: Shape) -> Any:
        if self._use_graphs and shape not in self._graphs:
            self._record(shape)
        if not self._use_graphs:
            return self._pass(shape)
        graph, output = self._graphs[shape]
        graph.replay()
        return output

    def _record(self, shape: Shape) -> None:
        with _RECORDING:
            self._pass(shape)  # loads the kernels, which may not happen while recording
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    output = self._pass(shape)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:  # the model looks at its data on the way, which a graph can't
                log.warning("model can't be recorded as a CUDA graph", error=type(error).__name__)
                self._use_graphs = False
                return
        self._graphs[shape] = graph, output

    def _pass(self, shape: Shape) -> Any:
        lengths = self._input[: shape.rows]
        ids = self._input[shape.rows : shape.rows + shape.tokens].view(shape.rows, shape.length)
        return probabilities(self._model, ids, lengths, self._independent_labels)


class _Slot:
    """Pinned memory for one piece on its way: the lengths of its rows, then their ids; and what comes back."""

    def __init__(self, words: int, labels: int) -> None:
        self.input = torch.zeros(words, dtype=torch.int32, pin_memory=True)
        self.output = torch.zeros((MAX_ROWS, labels), dtype=torch.float32, pin_memory=True)
        self.done = torch.cuda.Event(blocking=True)  # waiters sleep instead of spinning
        self._words = self.input.numpy()

    def fill(self, shape: Shape, texts: Sequence[Sequence[int]], pad_id: int) -> int:
        """Write `texts` in the layout of `shape` and return the words used; rows too many are one padding token."""
        used = shape.rows + shape.tokens
        lengths = self._words[: shape.rows]
        lengths[: len(texts)] = [len(text) for text in texts]
        lengths[len(texts) :] = 1
        ids = self._words[shape.rows : used].reshape(shape.rows, shape.length)
        ids.fill(pad_id)
        for row, text in zip(ids, texts, strict=False):
            row[: len(text)] = text
        return used


def _land(slot: _Slot, indices: Sequence[int], rows: list[Row]) -> None:
    slot.done.synchronize()
    for index, row in zip(indices, slot.output[: len(indices)].tolist(), strict=True):
        rows[index] = tuple(row)
