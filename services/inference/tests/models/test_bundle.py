"""Built model folders: missing or altered files and different scores are reported at start."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from inference.engines.base import Encoded, ModelCard, ModelError, softmax
from inference.models import bundle
from inference.models.bundle import Reference, self_check

CARD = {"name": "tiny", "revision": "abc", "labels": ["SAD", "GLAD"], "max_tokens": 8}
REFERENCE = [{"text": f"sentence {number}", "int8": [0.0, number / 10]} for number in range(100)]


class RecordedEngine:
    """Answers what the reference recorded, the last number of each score moved by `shift`."""

    card = ModelCard("tiny", "abc", ("SAD", "GLAD"), 8, "fake", "cpu")

    def __init__(self, reference: Sequence[Reference], shift: float = 0.0) -> None:
        self._reference = reference
        self._shift = shift
        self.scored = 0

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [Encoded((place,)) for place, each in enumerate(self._reference) if each.text in texts]

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        self.scored = len(batch)
        rows = [self._reference[text.ids[0]].scores for text in batch]
        return [(*row[:-1], row[-1] + self._shift) for row in rows]

    def close(self) -> None:
        pass


@pytest.fixture
def reference() -> list[Reference]:
    return [Reference(f"sentence {number}", softmax((0.0, number / 10))) for number in range(100)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / bundle.MODEL).write_bytes(b"weights")
    (folder / bundle.TOKENIZER).write_text("{}")
    (folder / bundle.CARD).write_text(json.dumps(CARD))
    (folder / bundle.REFERENCE).write_text(json.dumps(REFERENCE))
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Record every file's SHA-256 as it is now."""
    names = [name for name in bundle.FILES if name != bundle.CHECKSUMS]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / bundle.CHECKSUMS).write_text("".join(lines))


def test_bundled_model__is_complete_and_states_its_weakness() -> None:
    loaded = bundle.load()
    assert loaded.card.name == "sluice-sentiment-minilm"
    assert loaded.card.labels == ("NEGATIVE", "POSITIVE")
    assert any("neutral" in weakness for weakness in loaded.card.known_weaknesses)
    assert len(loaded.reference) >= 200


def test_missing_files__are_all_named(folder: Path) -> None:
    (folder / bundle.MODEL).unlink()
    (folder / bundle.REFERENCE).unlink()
    with pytest.raises(ModelError, match=r"lacks model\.onnx, reference\.json"):
        bundle.load(folder)


@pytest.mark.parametrize("name", [bundle.MODEL, bundle.TOKENIZER, bundle.CARD, bundle.REFERENCE])
def test_altered_file__is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=name):
        bundle.load(folder)


def test_file_without_a_checksum__is_refused(folder: Path) -> None:
    lines = (folder / bundle.CHECKSUMS).read_text().splitlines(keepends=True)
    (folder / bundle.CHECKSUMS).write_text("".join(line for line in lines if bundle.MODEL not in line))
    with pytest.raises(ModelError, match=r"no line for model\.onnx"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (bundle.CARD, "{", "is not JSON"),
        (bundle.CARD, "[]", "is not a model card"),
        (bundle.CARD, '{"name": "tiny"}', "revision"),
        (bundle.REFERENCE, '[{"text": "a"}]', "int8"),
    ],
)
def test_file_with_other_contents__is_refused(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    seal(folder)
    with pytest.raises(ModelError, match=message):
        bundle.load(folder)


def test_card_with_too_many_labels__is_refused(reference: list[Reference]) -> None:
    engine = RecordedEngine(reference)
    engine.card = replace(engine.card, labels=("SAD", "SO SO", "GLAD"))
    with pytest.raises(ModelError, match="names 3 labels; it gives 2 scores"):
        self_check(engine, reference)


def test_machine_within_the_tolerance__passes(reference: list[Reference]) -> None:
    self_check(RecordedEngine(reference, shift=bundle.SELF_CHECK_TOLERANCE * 0.99), reference)


@pytest.mark.parametrize("shift", [bundle.SELF_CHECK_TOLERANCE * 1.01, -1.0, math.nan])
def test_machine_that_drifts__is_refused(reference: list[Reference], shift: float) -> None:
    with pytest.raises(ModelError, match=r"50 of 50 reference sentences .* does not suit tiny"):
        self_check(RecordedEngine(reference, shift), reference)


@pytest.mark.parametrize(("sample", "scored"), [(1, 1), (50, 50), (64, 50), (100, 100), (1000, 100)])
def test_sample__bounds_the_sentences_scored(reference: list[Reference], sample: int, scored: int) -> None:
    engine = RecordedEngine(reference)
    self_check(engine, reference, sample)
    assert engine.scored == scored
