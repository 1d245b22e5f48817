"""Scoring on the CPU with ONNX Runtime, in one thread that never spins."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from inference.engines.base import RUN_TOKENS, Encoded, ModelError, sigmoid, softmax
from inference.models.bundle import Bundle

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, while onnxruntime is imported

import onnxruntime

__all__ = ["OnnxEngine", "onnxruntime", "tokenizer_for"]

_REQUIRED_INPUTS: Final = {"input_ids"}
_INPUTS: Final = _REQUIRED_INPUTS | {"attention_mask", "token_type_ids"}
_DTYPES: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_PROBES: Final = ("good", "neither good nor bad, but long enough to be seen twice", "a very long story indeed " * 12)
_SAME: Final = 1e-3


class OnnxEngine:
    """One session for one thread at a time. Texts of similar length share a run.

    The bundled graph has fixed scales, so neighbours and padding change no bit of a score.
    """

    def __init__(self, model: Bundle) -> None:
        """Raises ModelError if a file is not what its name says."""
        self.card = model.card
        self._pad_id = model.pad_id
        self._activate = sigmoid if model.card.activation == "sigmoid" else softmax
        self._tokenizer = tokenizer_for(model.tokenizer, model.card.max_tokens)
        self._session = _session_for(model.model, is_optimised=model.is_optimised)
        self._dtypes = _inputs_of(self._session, model.model)
        self._output = _output_of(self._session, model.model)
        self._run_tokens = RUN_TOKENS

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [Encoded(tuple(each.ids), truncated=bool(each.overflowing)) for each in encodings]

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        scores: list[tuple[float, ...]] = [()] * len(batch)
        for places in _runs(batch, self._run_tokens):
            logits = self._logits([batch[place] for place in places])
            for place, row in zip(places, logits, strict=True):
                scores[place] = self._activate(row)
        return scores

    def separate_texts_if_needed(self) -> bool:
        """Score one text per run if scores depend on the neighbours, as with dynamic quantisation. True if they do.

        Raises ModelError for a graph that cannot score, or has another number of labels than its card.
        """
        probes = self.encode(_PROBES)
        try:
            alone = [self.score([probe])[0] for probe in probes]
            together = [self._activate(row) for row in self._logits(probes)]
        except Exception as error:
            raise ModelError(f"the graph of {self.card.name} cannot score a text: {_first_line(error)}") from error
        if (found := len(together[0])) != len(self.card.labels):
            raise ModelError(
                f"the graph of {self.card.name} gives {found} scores, and id2label names {len(self.card.labels)}"
            )
        moves = [abs(a - b) for pair in zip(alone, together, strict=True) for a, b in zip(*pair, strict=True)]
        if not all(math.isfinite(move) for move in moves):
            raise ModelError(f"the graph of {self.card.name} gives scores that are not numbers: export it again")
        if max(moves) <= _SAME:
            return False
        self._run_tokens = 0
        return True

    def close(self) -> None:
        del self._session

    def _logits(self, texts: Sequence[Encoded]) -> list[list[float]]:
        longest = max(text.tokens for text in texts)
        ids = np.full((len(texts), longest), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : text.tokens] = text.ids
            mask[row, : text.tokens] = 1
        values = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._dtypes:
            values["token_type_ids"] = np.zeros_like(ids)
        feeds = {name: values[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        [logits] = self._session.run([self._output], feeds)
        return logits.tolist()  # type: ignore[no-any-return]


def tokenizer_for(file: Path, max_tokens: int) -> Tokenizer:
    """Return a tokenizer that truncates at `max_tokens` and does not pad. Raises ModelError."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{file} is not a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _session_for(model: Path, *, is_optimised: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if is_optimised:  # it passed the quality gate as it is: run that graph, not a rewritten one
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen classes with no common base
        raise ModelError(
            f"{model} is not a model that onnxruntime can run, or is incomplete: download it again: "
            f"{_first_line(error)}"
        ) from error


def _inputs_of(session: onnxruntime.InferenceSession, model: Path) -> dict[str, Any]:
    """Return the element type of each input."""
    types = {value.name: value.type for value in session.get_inputs()}
    if unknown := sorted(types.keys() - _INPUTS) or sorted(_REQUIRED_INPUTS - types.keys()):
        raise ModelError(
            f"{model} takes {', '.join(sorted(types))}, and only {', '.join(sorted(_INPUTS))} can be given "
            f"(see {', '.join(unknown)}): export it with `optimum-cli export onnx --task text-classification`"
        )
    if wrong := [name for name, kind in types.items() if kind not in _DTYPES]:
        raise ModelError(f"{model}: the input {wrong[0]} is a {types[wrong[0]]}, not integers: export it again")
    return {name: _DTYPES[kind] for name, kind in types.items()}


def _output_of(session: onnxruntime.InferenceSession, model: Path) -> str:
    names = [value.name for value in session.get_outputs()]
    if "logits" in names:
        return "logits"
    if len(names) == 1:
        return str(names[0])
    raise ModelError(
        f"{model} gives {', '.join(names)} and no logits: "
        "export it with `optimum-cli export onnx --task text-classification`"
    )


def _runs(batch: Sequence[Encoded], run_tokens: int) -> Iterator[list[int]]:
    """Places in the batch that share a run: similar in length, at most `run_tokens` with padding, or one text."""
    run: list[int] = []
    for place in sorted(range(len(batch)), key=lambda place: batch[place].tokens):
        if run and (len(run) + 1) * batch[place].tokens > run_tokens:
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
