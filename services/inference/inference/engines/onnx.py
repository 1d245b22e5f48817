"""Owns scoring on the CPU with ONNX Runtime; adds no thread of its own and never spins."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inference.engines.base import Encoded, ModelCard, ModelError, softmax
from inference.engines.runtime import onnxruntime
from inference.engines.tokenizer import RUN_TOKENS, encoded_by, tokenizer_for

INPUTS = ("input_ids", "attention_mask")


class OnnxEngine:
    """One session on one thread; a second worker takes a second engine.

    Texts of like length share a run. The bundled model's scales are fixed, so neighbours and padding change no bit
    of a score.
    """

    def __init__(self, model: Path, tokenizer: Path, card: ModelCard) -> None:
        """Raises ModelError when a file is not what its name says."""
        self.card = card
        self._tokenizer = tokenizer_for(tokenizer, card.max_tokens)
        self._session = _session_for(model)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return encoded_by(self._tokenizer, texts)

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        scores: list[tuple[float, ...]] = [()] * len(batch)
        for places in _runs(batch):
            logits = self._logits([batch[place] for place in places])
            for place, row in zip(places, logits, strict=True):
                scores[place] = softmax(row)
        return scores

    def close(self) -> None:
        del self._session

    def _logits(self, texts: Sequence[Encoded]) -> list[list[float]]:
        longest = max(text.tokens for text in texts)
        ids = np.zeros((len(texts), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : text.tokens] = text.ids
            mask[row, : text.tokens] = 1
        [logits] = self._session.run(["logits"], dict(zip(INPUTS, (ids, mask), strict=True)))
        return logits.tolist()  # type: ignore[no-any-return]


def _session_for(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The graph was fused where it was made and passed the gate as it is: run that one, not a rewritten one.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen classes with no common base
        raise ModelError(f"{model} is not a model that onnxruntime can run: {error}") from error
    names = {value.name for value in session.get_inputs()}
    if names != set(INPUTS) or "logits" not in {value.name for value in session.get_outputs()}:
        raise ModelError(f"{model} takes {sorted(names)}; expected {', '.join(INPUTS)} in and logits out")
    return session


def _runs(batch: Sequence[Encoded]) -> Iterator[list[int]]:
    """Places in the batch that share a run: alike in length and together at most RUN_TOKENS, padding included."""
    run: list[int] = []
    for place in sorted(range(len(batch)), key=lambda place: batch[place].tokens):
        if run and (len(run) + 1) * batch[place].tokens > RUN_TOKENS:
            yield run
            run = []
        run.append(place)
    if run:
        yield run
