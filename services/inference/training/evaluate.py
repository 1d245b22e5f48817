"""Quality of a model on labelled rows, and agreement of two models."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.engines.base import Engine
from inference.engines.onnx import OnnxEngine
from inference.models import bundle, hub
from training.quality_gate import read_rows

BINS = 15
BATCH = 32

Scores = Sequence[float]


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares between 0 and 1. `calibration_error` is the expected calibration error with 15 bins."""

    rows: int
    accuracy: float
    macro_f1: float
    calibration_error: float


def quality(labels: Sequence[int], scores: Sequence[Scores]) -> Quality:
    """Raises ValueError without rows."""
    if not labels:
        raise ValueError("no rows to evaluate")
    found = [_best(row) for row in scores]
    hits = [label == best for label, best in zip(labels, found, strict=True)]
    return Quality(
        rows=len(labels),
        accuracy=sum(hits) / len(hits),
        macro_f1=macro_f1(labels, found),
        calibration_error=calibration_error([max(row) for row in scores], hits),
    )


def macro_f1(labels: Sequence[int], found: Sequence[int]) -> float:
    """Return the unweighted mean F1 of the labels that occur."""
    return _mean([_f1(label, labels, found) for label in sorted({*labels, *found})])


def calibration_error(confidences: Sequence[float], hits: Sequence[bool]) -> float:
    """Return the mean distance between confidence and accuracy over equal bins (Guo et al. 2017)."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, hit))
    distances = [abs(sum(confidence - hit for confidence, hit in members)) for members in bins.values()]
    return sum(distances) / len(hits)


def agreement(one: Sequence[Scores], other: Sequence[Scores]) -> float:
    """Return the share of texts with the same label."""
    return _mean([_best(left) == _best(right) for left, right in zip(one, other, strict=True)])


def score_texts(engine: Engine, texts: Sequence[str]) -> list[tuple[float, ...]]:
    """Return scores in the order of `texts`, computed in batches of similar length."""
    encoded = engine.encode(texts)
    order = sorted(range(len(encoded)), key=lambda place: encoded[place].tokens)
    scores: list[tuple[float, ...]] = [()] * len(encoded)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        for place, row in zip(places, engine.score([encoded[place] for place in places]), strict=True):
            scores[place] = row
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    first: list[tuple[float, ...]] = []
    for name in options.model or ["onnx:bundled"]:
        engine = _open(name)
        rows = read_rows(options.rows, len(engine.card.labels))
        scores = score_texts(engine, [row.text for row in rows])
        engine.close()
        first = first or scores
        print(
            name,
            quality([row.label for row in rows], scores),
            f"agrees with the first on {agreement(first, scores):.2%}",
        )


def _open(name: str) -> Engine:
    kind, _, model = name.partition(":")
    if kind == "onnx":
        return OnnxEngine(hub.open_folder(bundle.BUNDLED if model == "bundled" else Path(model)))
    if kind == "torch":
        from inference.engines.torch.engine import TorchEngine  # torch is an extra

        return TorchEngine(model)
    raise SystemExit(f"{name}: expected onnx:MODEL or torch:MODEL")


def _best(scores: Scores) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _f1(label: int, labels: Sequence[int], found: Sequence[int]) -> float:
    """Return 2 TP / (2 TP + FP + FN)."""
    right = sum(one == other == label for one, other in zip(labels, found, strict=True))
    return 2 * right / (labels.count(label) + found.count(label))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Accuracy, macro-F1 and calibration error of models, and how far they agree.",
    )
    parser.add_argument("rows", type=Path, nargs="+", help="files of label<TAB>text")
    parser.add_argument(
        "--model", action="append", help="onnx:FOLDER or torch:FOLDER, or :bundled; repeat it to compare with the first"
    )
    return parser


if __name__ == "__main__":
    main()
