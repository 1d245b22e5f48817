"""Owns the pass from token ids to probabilities on the CPU, and the part of it all devices share; knows no files."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch

Row: TypeAlias = tuple[float, ...]


class Forward(Protocol):
    """A model on one device. Each has one user at a time."""

    def run(self, texts: Sequence[Sequence[int]]) -> list[Row]:
        """One probability per label for each text of token ids, in order, whatever its neighbours."""
        ...

    def close(self) -> None: ...


def probabilities(model: Any, ids: Any, lengths: Any, independent_labels: bool) -> Any:
    """Of the texts in `ids`, one a row, whose first `lengths` tokens count; in float32 whatever the model is in."""
    positions = torch.arange(ids.shape[1], dtype=lengths.dtype, device=ids.device)
    mask = positions < lengths[:, None]
    logits = model(input_ids=ids.long(), attention_mask=mask.long()).logits.float()
    return logits.sigmoid() if independent_labels else logits.softmax(-1)


class CpuForward:
    """float32, every batch in one pass, padded to its longest text: the caller keeps like lengths together."""

    def __init__(self, model: Any, pad_id: int, independent_labels: bool) -> None:
        self._model = model
        self._pad_id = pad_id
        self._independent_labels = independent_labels

    def run(self, texts: Sequence[Sequence[int]]) -> list[Row]:
        if not texts:
            return []
        lengths = torch.tensor([len(text) for text in texts])
        longest = max(len(text) for text in texts)
        ids = torch.tensor([[*text, *[self._pad_id] * (longest - len(text))] for text in texts])
        with torch.inference_mode():
            rows = probabilities(self._model, ids, lengths, self._independent_labels)
        return [tuple(row) for row in rows.tolist()]

    def close(self) -> None:
        del self._model
