"""Classifiers in the Hub's ONNX layout, made of the bundled model's files; other architectures need torch to export."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import ModelError
from inference.engines.client import ProcessClient
from inference.engines.factory import Torch, select_engine
from inference.engines.onnx import OnnxEngine
from inference.models import bundle, hub

CONFIG = {"model_type": "bert", "max_position_embeddings": 512, "id2label": {"0": "BAD", "1": "GOOD"}}
TEXTS = ["a wonderful film", "dull", "a long and winding story that never ends " * 5]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "someone-sentiment"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").symlink_to(bundle.BUNDLED / bundle.MODEL)
    (folder / "tokenizer.json").symlink_to(bundle.BUNDLED / bundle.TOKENIZER)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def configure(folder: Path, **changed: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changed))


async def test_hub_folder__is_served_with_its_labels_and_limit(folder: Path) -> None:
    spec = select_engine("auto", str(folder), "auto", detect=lambda: Torch(is_installed=False, has_gpu=False))
    client = await spec.create()
    card, rows = client.card, await client.score(TEXTS)
    await client.close()
    assert (card.name, card.labels, card.max_tokens, card.engine) == (folder.name, ("BAD", "GOOD"), 256, "onnx")
    bundled = OnnxEngine(bundle.load())
    expected = bundled.score(bundled.encode(TEXTS))
    assert [row.scores for row in rows] == [pytest.approx(scores, abs=1e-6) for scores in expected]


def test_sigmoid_model__scores_each_label_by_itself(folder: Path) -> None:
    configure(folder, problem_type="multi_label_classification")
    engine = OnnxEngine(hub.load(folder))
    [scores] = engine.score(engine.encode(["a wonderful film"]))
    assert engine.card.activation == "sigmoid"
    assert all(0 <= score <= 1 for score in scores)
    assert sum(scores) != pytest.approx(1, abs=1e-4)


def test_revision__changes_with_the_labels(folder: Path) -> None:
    before = hub.load(folder).card.revision
    configure(folder, id2label={"0": "GOOD", "1": "BAD"})
    assert hub.load(folder).card.revision != before


@pytest.mark.parametrize(
    ("config", "stated", "expected"),
    [
        ({}, 256, 256),
        ({}, 1e30, 512),
        ({}, None, 512),
        ({"max_position_embeddings": None}, None, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 1e30, 512),
    ],
)
def test_token_limit__is_the_lower_of_tokenizer_and_model(
    folder: Path, config: Any, stated: float | None, expected: int
) -> None:
    configure(folder, **config)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stated}))
    assert hub.load(folder).card.max_tokens == expected


def test_several_graphs__are_chosen_by_setting(folder: Path) -> None:
    assert hub.load(folder).model.name == "model.onnx"
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_int8.onnx")
    assert hub.load(folder).model.name == "model_int8.onnx"
    (folder / "onnx" / "model_q4.onnx").symlink_to(bundle.BUNDLED / bundle.MODEL)
    with pytest.raises(ModelError, match=r"INFERENCE_ONNX_FILE to one of onnx/model_int8\.onnx, onnx/model_q4\.onnx"):
        hub.load(folder)
    assert hub.load(folder, "onnx/model_q4.onnx").model.name == "model_q4.onnx"
    with pytest.raises(ModelError, match="INFERENCE_ONNX_FILE to one of"):
        hub.load(folder, "onnx/model.onnx")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def without_labels(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def with_three_labels(folder: Path) -> None:
    configure(folder, id2label={"0": "BAD", "1": "SO SO", "2": "GOOD"})


def truncated(name: str) -> Callable[[Path], None]:
    def truncate(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content[: len(content) // 2])

    return truncate


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("tokenizer.json"), r"has no tokenizer\.json: download it"),
        (without("onnx/model.onnx"), "has no ONNX graph: export it with `optimum-cli"),
        (without_labels, r"config\.json names no labels: add them"),
        (with_three_labels, "gives 2 scores, and id2label names 3"),
        (lambda folder: configure(folder, id2label={"1": "BAD", "2": "GOOD"}), "number the labels"),
        (lambda folder: configure(folder, id2label={"0": "GOOD"}), "names one label"),
        (lambda folder: configure(folder, problem_type="regression"), "'regression': only single_label"),
        (truncated("onnx/model.onnx"), r"model\.onnx .* is incomplete: download it again"),
        (truncated("tokenizer.json"), r"tokenizer\.json is not a tokenizer"),
        (truncated("config.json"), r"config\.json is not JSON: download it again"),
        (lambda folder: os.truncate(folder / "tokenizer_config.json", 1), r"tokenizer_config\.json is not JSON"),
    ],
)
async def test_folder_that_cannot_be_served__stops_the_start_with_one_line(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=message) as raised:
        await ProcessClient.start(hub.load(folder))
    assert "\n" not in str(raised.value)


def test_built_folder__is_not_taken_for_a_hub_folder(folder: Path, tmp_path: Path) -> None:
    built = shutil.copytree(bundle.BUNDLED, tmp_path / "built")
    shutil.copy(folder / "config.json", built)
    assert hub.open_folder(built).card.labels == ("NEGATIVE", "POSITIVE")
