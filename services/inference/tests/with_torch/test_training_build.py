"""The graph against transformers itself, and the folder that a build leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training.evaluate import Quality
from training.quality_gate import Comparison, GateRefused

from inference.engines.onnx import OnnxEngine
from inference.models import bundle

pytestmark = pytest.mark.torch

PERFECT = Comparison(rows=1, reference_accuracy=1, accuracy=1, agreement=1, confident_agreement=1)
QUALITY = Quality(rows=1, accuracy=1, macro_f1=0.875, calibration_error=0.125)
LIMIT = 40


@pytest.fixture
def classifier_folder(create_classifier: Any) -> Path:
    folder: Path = create_classifier(labels=("sad", "glad"))
    return folder


@pytest.fixture
def folded(classifier_folder: Path) -> Any:
    from safetensors.numpy import load_file
    from training.weights import fold

    config = json.loads((classifier_folder / "config.json").read_text())
    tensors = load_file(classifier_folder / "model.safetensors")
    return fold(tensors, config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"])


@pytest.fixture
def sentences(words: Any) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(words, size=draw.integers(1, 30))) for _ in range(60)]


@pytest.fixture
def tokenizer(classifier_folder: Path) -> Any:
    from inference.engines.onnx import tokenizer_for

    return tokenizer_for(classifier_folder / "tokenizer.json", LIMIT)


def expected_logits(folder: Path, tokenizer: Any, texts: list[str]) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return np.concatenate([model(torch.tensor([tokenizer.encode(text).ids])).logits.numpy() for text in texts])


def test_float_graph__computes_what_transformers_does(
    classifier_folder: Path, folded: Any, tokenizer: Any, sentences: list[str]
) -> None:
    from training.build import Scorer
    from training.graph import ClassifierGraph

    found = Scorer(ClassifierGraph(folded, {}).build(), tokenizer).logits(sentences)
    np.testing.assert_allclose(found, expected_logits(classifier_folder, tokenizer, sentences), atol=2e-4)


def test_int8_graph__stays_close_and_repeats_to_the_byte(folded: Any, tokenizer: Any, sentences: list[str]) -> None:
    from training.build import Scorer, quantised_graph
    from training.graph import ClassifierGraph

    graph = quantised_graph(folded, tokenizer, sentences)
    floating = np.array(Scorer(ClassifierGraph(folded, {}).build(), tokenizer).logits(sentences))
    int8 = np.array(Scorer(graph, tokenizer).logits(sentences))
    assert np.abs(int8 - floating).max() < 0.1 * np.abs(floating).max()
    assert graph.SerializeToString() == quantised_graph(folded, tokenizer, sentences).SerializeToString()


def test_built_folder__is_served(
    classifier_folder: Path, folded: Any, tokenizer: Any, sentences: list[str], tmp_path: Path
) -> None:
    from training.build import Scorer, quantised_graph, write_folder

    graph = quantised_graph(folded, tokenizer, sentences)
    reference = [
        {"text": text, "int8": logits}
        for text, logits in zip(sentences, Scorer(graph, tokenizer).logits(sentences), strict=True)
    ]
    facts = {"name": "tiny", "labels": ["sad", "glad"], "max_tokens": LIMIT}
    write_folder(tmp_path / "out", graph, classifier_folder / "tokenizer.json", facts, PERFECT, QUALITY, reference)

    loaded = bundle.load(tmp_path / "out")
    engine = OnnxEngine(loaded)
    bundle.self_check(engine, loaded.reference, sample=len(sentences))
    scores = json.loads((tmp_path / "out" / bundle.CARD).read_text(encoding="utf-8"))["scores"]
    assert (scores["int8_macro_f1"], scores["int8_calibration_error"]) == (0.875, 0.125)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}
    engine.close()


def test_model_that_fails_the_gate__is_not_written(classifier_folder: Path, folded: Any, tmp_path: Path) -> None:
    from training.build import write_folder
    from training.graph import ClassifierGraph

    failing = Comparison(rows=1, reference_accuracy=1, accuracy=0, agreement=0, confident_agreement=0)
    with pytest.raises(GateRefused, match="accuracy falls"):
        write_folder(
            tmp_path / "out",
            ClassifierGraph(folded, {}).build(),
            classifier_folder / "tokenizer.json",
            {},
            failing,
            QUALITY,
            [],
        )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"labels": ["sad"]}, "needs 2 different ones"),
        ({"labels": ["sad", "so so", "glad"]}, "needs 2 different ones"),
        ({"labels": ["sad", "sad"]}, "needs 2 different ones"),
        ({"labels": ["sad", "g" * 65]}, "label: .* at most 64"),
        ({"name": ""}, "model: .* at least 1"),
        ({"max_tokens": 41}, "takes from 3 to 40"),
        ({"max_tokens": None}, "takes from 3 to 40"),
    ],
)
def test_unusable_card__is_refused(folded: Any, wrong: dict[str, Any], said: str) -> None:
    from training.build import require_card

    facts = {"name": "tiny", "labels": ["sad", "glad"], "max_tokens": LIMIT}
    require_card(facts, folded)
    with pytest.raises(SystemExit, match=said):
        require_card(facts | wrong, folded)


def test_folder_with_other_files__is_refused_before_the_build(tmp_path: Path) -> None:
    from training import build

    (tmp_path / "notes.txt").touch()
    (tmp_path / bundle.CARD).touch()
    for out, said in ((tmp_path, "not a model's: notes.txt"), (tmp_path / "notes.txt", "Not a directory")):
        with pytest.raises(SystemExit, match=said):
            build.main(["--eval", "absent.tsv", "--out", str(out)])
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt", bundle.CARD}


def test_existing_model__is_replaced(classifier_folder: Path, folded: Any, tmp_path: Path) -> None:
    from training.build import write_folder
    from training.graph import ClassifierGraph

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / bundle.CARD).write_text("old")
    tokenizer = classifier_folder / "tokenizer.json"
    write_folder(tmp_path / "out", ClassifierGraph(folded, {}).build(), tokenizer, {}, PERFECT, QUALITY, [])
    assert (tmp_path / "out" / bundle.CARD).read_text() != "old"
    assert not list(tmp_path.glob("*/old"))


def test_adapter_other_than_plain_lora__is_refused(tmp_path: Path) -> None:
    from training.weights import encoder_folder, merged_classifier

    from inference.engines.torch.models import ADAPTER

    shutil.copytree(ADAPTER, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.chmod(0o644)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    with pytest.raises(SystemExit, match="use_rslora"):
        merged_classifier(encoder_folder(), tmp_path / "adapter")


def test_bundled_model__is_what_a_build_makes_today() -> None:
    from training.build import ADAPTER, SENTENCES, Scorer, quantised_graph
    from training.weights import encoder_folder, merged_classifier

    from inference.engines.onnx import tokenizer_for

    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    loaded = bundle.load()
    tokenizer = tokenizer_for(loaded.tokenizer, loaded.card.max_tokens)
    graph = quantised_graph(merged_classifier(encoder_folder(), ADAPTER), tokenizer, sentences)
    recorded = json.loads((bundle.BUNDLED / bundle.REFERENCE).read_text(encoding="utf-8"))
    found = Scorer(graph, tokenizer).logits(sentences)
    np.testing.assert_allclose(found, [entry["int8"] for entry in recorded], atol=0.05)
