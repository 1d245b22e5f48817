"""Builds a model folder from the encoder and an adapter, and writes it only if it passes the quality gate.

The same inputs and library versions give the same bytes. It needs no torch, and no data but the rows of the gate.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer

from inference.engines.base import ModelCard, ModelError, softmax
from inference.engines.onnx import onnxruntime, tokenizer_for
from inference.models.bundle import BUNDLED, CARD, CHECKSUMS, FILES, MODEL, REFERENCE, TOKENIZER
from inference.prediction.recorder import require_recordable
from training.evaluate import Quality, quality
from training.graph import TAP, ClassifierGraph
from training.quality_gate import Comparison, GateRefused, compare, read_rows, require
from training.quantise import Range, merge_ranges, quantise_linears
from training.weights import Classifier, encoder_folder, merged_classifier

HERE = Path(__file__).parent
ADAPTER = HERE.parent / "inference" / "models" / "adapter"
CARD_FACTS = HERE / "card.json"
SENTENCES = HERE / "sentences.txt"
LOGIT_DIGITS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    require_replaceable(options.out)
    encoder = encoder_folder()
    _say("merging the adapter into the encoder")
    model = merged_classifier(encoder, options.adapter)
    facts = json.loads(options.card.read_text(encoding="utf-8"))
    require_card(facts, model)
    tokenizer = tokenizer_for(encoder / "tokenizer.json", facts["max_tokens"])
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()

    _say("building the fp32 graph")
    floating = Scorer(ClassifierGraph(model, {}).build(), tokenizer)
    _say(f"calibrating on {len(sentences)} sentences")
    int8_graph = quantised_graph(model, tokenizer, sentences)
    int8 = Scorer(int8_graph, tokenizer)

    rows = read_rows(options.eval, len(facts["labels"]))
    _say(f"comparing int8 with fp32 on {len(rows)} rows")
    texts = [row.text for row in rows]
    int8_logits = int8.logits(texts)
    comparison = compare(rows, floating.logits(texts), int8_logits)
    found = quality([row.label for row in rows], [softmax(logits) for logits in int8_logits])
    _say(f"  {comparison}\n  {found}")
    reference = [
        {"text": text, "fp32": before, "int8": after}
        for text, before, after in zip(sentences, floating.logits(sentences), int8.logits(sentences), strict=True)
    ]
    try:
        write_folder(options.out, int8_graph, encoder / "tokenizer.json", facts, comparison, found, reference)
    except GateRefused as refusal:
        sys.exit(f"nothing written: {refusal}")
    _say(f"wrote {options.out}")


def require_replaceable(out: Path) -> None:
    """Raise SystemExit unless a model can be written to `out`, which may hold only an older model."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
        other = sorted({file.name for file in out.iterdir()} - set(FILES)) if out.exists() else []
    except OSError as error:
        sys.exit(f"nothing written: --out {out}: {error.strerror}")
    if other:
        sys.exit(f"nothing written: --out {out} holds files that are not a model's: {', '.join(other)}")


def require_card(facts: dict[str, Any], model: Classifier) -> None:
    """Raise SystemExit unless a service could start with this card."""
    labels, max_tokens = facts.get("labels", []), facts.get("max_tokens")
    logits, positions = model.linears["head"].bias.size, len(model.positions)
    if len(labels) != logits or len(set(labels)) != logits:
        sys.exit(f"nothing written: the card's labels are {', '.join(labels)}; the model needs {logits} different ones")
    if not (isinstance(max_tokens, int) and 2 < max_tokens <= positions):
        sys.exit(f"nothing written: the card's max_tokens is {max_tokens}; the model takes from 3 to {positions}")
    try:
        require_recordable(ModelCard(facts.get("name", ""), "", tuple(labels), max_tokens, "onnx", "cpu"))
    except ModelError as error:
        sys.exit(f"nothing written: {error}")


class Scorer:
    """Logits of a graph, one text at a time, rounded as they are stored."""

    def __init__(self, graph: onnx.ModelProto, tokenizer: Tokenizer) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizer

    def outputs(self, text: str) -> dict[str, Any]:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return dict(zip(names, values, strict=True))

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        return [[round(float(value), LOGIT_DIGITS) for value in self.outputs(text)["logits"][0]] for text in texts]


def quantised_graph(model: Classifier, tokenizer: Tokenizer, sentences: Sequence[str]) -> onnx.ModelProto:
    tapped = Scorer(ClassifierGraph(model, {}, taps=True).build(), tokenizer)
    seen: dict[str, list[Range]] = {}
    for sentence in sentences:
        for name, value in tapped.outputs(sentence).items():
            if name.startswith(TAP):
                seen.setdefault(name.removeprefix(TAP), []).append(Range(value.min(axis=0), value.max(axis=0)))
    ranges = {name: merge_ranges(found) for name, found in seen.items()}
    return ClassifierGraph(model, quantise_linears(model.linears, ranges)).build()


def write_folder(
    out: Path,
    graph: onnx.ModelProto,
    tokenizer: Path,
    facts: dict[str, Any],
    comparison: Comparison,
    found: Quality,
    reference: list[dict[str, Any]],
) -> None:
    """Write a temporary folder, then rename it, so that an interrupted run leaves the old folder intact.

    Raises GateRefused, and writes nothing, for a model that fails the gate.
    """
    require(comparison)
    require_replaceable(out)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        (folder / MODEL).write_bytes(graph.SerializeToString(deterministic=True))
        (folder / TOKENIZER).write_text(_plain_tokenizer(tokenizer), encoding="utf-8")
        card = {**facts, "revision": _revision(folder, facts), "scores": _scores(comparison, found)}
        (folder / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        (folder / REFERENCE).write_text(_reference_lines(reference), encoding="utf-8")
        lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
        (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)
        _exchange(folder, out, Path(temporary) / "old")


def _exchange(new: Path, out: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def _revision(folder: Path, facts: dict[str, Any]) -> str:
    """Return a digest of everything that can change an answer: weights, tokenizer, labels, token limit."""
    stated = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256((folder / MODEL).read_bytes() + (folder / TOKENIZER).read_bytes() + stated).hexdigest()[:12]


def _plain_tokenizer(file: Path) -> str:
    """Return the tokenizer without truncation and padding, which the engine sets."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.to_str()


def _scores(comparison: Comparison, found: Quality) -> dict[str, float | int]:
    return {
        "evaluation_rows": comparison.rows,
        "fp32_accuracy": round(comparison.reference_accuracy, 4),
        "int8_accuracy": round(comparison.accuracy, 4),
        "int8_macro_f1": round(found.macro_f1, 4),
        "int8_calibration_error": round(found.calibration_error, 4),
        "label_agreement": round(comparison.agreement, 4),
        "label_agreement_where_fp32_is_sure": round(comparison.confident_agreement, 4),
    }


def _reference_lines(reference: Sequence[dict[str, Any]]) -> str:
    """Return a JSON list with one sentence per line, for readable diffs."""
    entries = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in reference)
    return f"[\n{entries}\n]\n"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.build", description=__doc__.splitlines()[0])
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="files of label<TAB>text for the gate")
    parser.add_argument("--adapter", type=Path, help="a LoRA adapter's folder (default: the bundled model's)")
    parser.add_argument("--card", type=Path, help="name, labels, max_tokens and other facts about the adapter's model")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="the folder to write (default: the bundled model)")
    options = parser.parse_args(arguments)
    if options.adapter is not None and options.card is None:
        parser.error("--adapter needs --card: the bundled model's card does not describe another model")
    options.out = options.out.resolve()  # replace the target of a link, not the link
    options.adapter, options.card = options.adapter or ADAPTER, options.card or CARD_FACTS
    return options


if __name__ == "__main__":
    main()
