"""The torch engine on the CPU: the port's promises, and agreement with transformers itself."""

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import ModelError, softmax
from inference.models import bundle

pytestmark = pytest.mark.torch

TEXTS = (
    "good",
    "a film so dull and so long",
    "it is not bad it is great fun",
    "so so",
    "a great cast and a slow bad dull long film and it is not fun",
)


def _open(source: str, **options: Any) -> Any:
    from inference.engines.torch.engine import TorchEngine

    return TorchEngine(source, device="cpu", **options)


@pytest.fixture(scope="module")
def bundled() -> Iterator[Any]:
    engine = _open("bundled")
    yield engine
    engine.close()


@pytest.fixture
def engine(classifier: Path) -> Iterator[Any]:
    engine = _open(str(classifier))
    yield engine
    engine.close()


def _close(have: Sequence[Sequence[float]], want: Sequence[Sequence[float]], tolerance: float) -> bool:
    return all(
        abs(a - b) <= tolerance
        for row, wanted in zip(have, want, strict=True)
        for a, b in zip(row, wanted, strict=True)
    )


def test_bundled_model__scores_the_reference_as_recorded(bundled: Any) -> None:
    sentences = json.loads((bundle.BUNDLED / bundle.REFERENCE).read_text(encoding="utf-8"))[:100]

    rows = bundled.score(bundled.encode([sentence["text"] for sentence in sentences]))

    assert _close(rows, [softmax(sentence["fp32"]) for sentence in sentences], 1e-3)


def test_scores__do_not_depend_on_the_neighbours(bundled: Any) -> None:
    encoded = bundled.encode([*TEXTS, "word " * 300])
    alone = [bundled.score([text])[0] for text in encoded]
    order = list(range(len(encoded)))
    random.Random(0).shuffle(order)

    together = bundled.score([encoded[index] for index in order])

    assert _close(together, [alone[index] for index in order], 1e-4)


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_scores__are_those_of_the_transformers_pipeline(
    create_classifier: Callable[..., Path], problem_type: str | None
) -> None:
    from transformers import pipeline

    folder = create_classifier(problem_type=problem_type)
    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    want = [{entry["label"]: entry["score"] for entry in entries} for entries in classify(list(TEXTS))]
    engine = _open(str(folder))
    have = engine.score(engine.encode(TEXTS))
    assert _close(have, [[scores[label] for label in engine.card.labels] for scores in want], 1e-5)


def test_text_beyond_the_limit__is_truncated(engine: Any) -> None:
    short, fitting, long = engine.encode(["good", "good " * 38, "good " * 39])

    assert (short.tokens, short.truncated) == (3, False)
    assert (fitting.tokens, fitting.truncated) == (40, False)
    assert (long.tokens, long.truncated) == (40, True)
    assert long.ids == fitting.ids


def test_gpu_asked_for_where_there_is_none__is_refused(classifier: Path) -> None:
    import torch

    from inference.engines.torch.engine import TorchEngine

    assert not torch.cuda.is_available(), "run this where there is no GPU"
    with pytest.raises(ModelError, match="no CUDA GPU"):
        TorchEngine(str(classifier), device="cuda")


def test_model_that_reads_the_padding__is_refused(classifier: Path, tmp_path: Path) -> None:
    from transformers import FNetConfig, FNetForSequenceClassification

    config = FNetConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=40
    )
    FNetForSequenceClassification(config).save_pretrained(tmp_path / "fnet")
    for file in classifier.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "fnet")
    with pytest.raises(ModelError, match="depend on the padding"):
        _open(str(tmp_path / "fnet"))


def test_model_whose_weights_are_no_numbers__is_refused(classifier: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(classifier / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] * float("nan")
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no numbers"):
        _open(str(classifier))


def test_drift_check__rejects_nan_and_differences() -> None:
    from inference.engines.base import ModelError
    from inference.engines.torch.engine import check_drift

    with pytest.raises(ModelError):
        check_drift([(0.5, 0.5)], [(float("nan"), float("nan"))])
    with pytest.raises(ModelError):
        check_drift([(0.5, 0.5)], [(0.6, 0.4)])
    check_drift([(0.5, 0.5)], [(0.504, 0.496)])
