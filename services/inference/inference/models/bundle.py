"""Owns the reading of a model folder: finds it, refuses what is missing or altered, and knows what it should answer."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.engines.base import Engine, ModelCard, ModelError, softmax

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
CARD = "card.json"
REFERENCE = "reference.json"
CHECKSUMS = "SHA256SUMS"
FILES = (MODEL, TOKENIZER, CARD, REFERENCE, CHECKSUMS)

BUNDLED = Path(__file__).parent / "bundled"

SELF_CHECK_SENTENCES = 64
SELF_CHECK_TOLERANCE = 0.02
"""Ten times what a CPU without VNNI differs by; weights that saturate there differ by six times this."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A sentence and the probabilities that the model gave where it was made."""

    text: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder whose files are complete.

    An optimised graph runs as it is; any other is rewritten by the runtime first.
    """

    folder: Path
    model: Path
    tokenizer: Path
    card: ModelCard
    reference: tuple[Reference, ...]
    is_optimised: bool = True
    pad_id: int = 0


def load(folder: Path = BUNDLED) -> Bundle:
    """Read and verify a folder. Raises ModelError."""
    _require_files(folder)
    _verify_checksums(folder)
    return Bundle(
        folder=folder,
        model=folder / MODEL,
        tokenizer=folder / TOKENIZER,
        card=_read_card(folder / CARD),
        reference=_read_reference(folder / REFERENCE),
    )


def self_check(engine: Engine, reference: Sequence[Reference], sample: int = SELF_CHECK_SENTENCES) -> None:
    """Score up to `sample` reference sentences, evenly spread.

    Raises ModelError if the scores do not match the labels in number, or the reference in value.
    """
    chosen = reference[:: -(-len(reference) // sample) or 1]
    found = engine.score(engine.encode([each.text for each in chosen]))
    labels = len(engine.card.labels)
    if wrong := {len(row) for row in (*found, *(each.scores for each in chosen))} - {labels}:
        raise ModelError(f"the card of {engine.card.name} names {labels} labels; it gives {min(wrong)} scores")
    off = [
        each
        for each, scores in zip(chosen, found, strict=True)
        if not all(abs(a - b) <= SELF_CHECK_TOLERANCE for a, b in zip(scores, each.scores, strict=True))
    ]
    if off:
        raise ModelError(
            f"this machine scores {len(off)} of {len(chosen)} reference sentences differently, by more than "
            f"{SELF_CHECK_TOLERANCE}: its arithmetic does not suit {engine.card.name}"
        )


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; a model is a folder with {', '.join(FILES)}")
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise ModelError(
            f"{folder} lacks {', '.join(absent)}, which `python -m training.build` writes; "
            "a folder from the Hub needs config.json, tokenizer.json and an ONNX graph"
        )


def _verify_checksums(folder: Path) -> None:
    recorded = {}
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        recorded[name] = digest
    for name in FILES:
        if name == CHECKSUMS:
            continue
        if name not in recorded:
            raise ModelError(f"{folder / CHECKSUMS} has no line for {name}")
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != recorded[name]:
            raise ModelError(f"{folder / name} is not the file that was written: its SHA-256 is {found}")


def _read_card(file: Path) -> ModelCard:
    card = _read_json(file)
    try:
        return ModelCard(
            name=str(card["name"]),
            revision=str(card["revision"]),
            labels=tuple(map(str, card["labels"])),
            max_tokens=int(card["max_tokens"]),
            engine="onnx",
            device="cpu",
            license=str(card.get("license", "unknown")),
            training_data=tuple(map(str, card.get("training_data", ()))),
            known_weaknesses=tuple(map(str, card.get("known_weaknesses", ()))),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} is not a model card: {error!r}") from error


def _read_reference(file: Path) -> tuple[Reference, ...]:
    entries = _read_json(file)
    try:
        return tuple(Reference(str(entry["text"]), softmax(entry["int8"])) for entry in entries)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} is not a list of reference sentences: {error!r}") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON: {error}") from error
