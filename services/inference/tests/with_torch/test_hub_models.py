"""Random classifiers exported to ONNX: served without torch, with the scores that transformers gives."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import ModelError
from inference.engines.client import ProcessClient
from inference.engines.onnx import OnnxEngine
from inference.models import hub

pytestmark = pytest.mark.torch

TEXTS = (
    "good",
    "a film so dull and so long",
    "it is not bad it is great fun",
    "a great cast and a slow bad dull long film and it is not fun",
    "so " * 60,
)
ARCHITECTURES = {
    "Bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "Roberta": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
}
Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path, save_tokenizer: Callable[..., None], words: Sequence[str]) -> Export:
    """Call it for a folder in the Hub's layout with a random classifier."""

    def create(architecture: str, labels: int, problem_type: str | None = None, **inputs: str) -> Path:
        import torch
        import transformers

        torch.manual_seed(labels)
        folder = tmp_path / f"{architecture}-{labels}"
        pad_id = 1 if architecture == "Roberta" else 0
        config = getattr(transformers, f"{architecture}Config")(
            **ARCHITECTURES[architecture],
            vocab_size=len(words) + 5,
            max_position_embeddings=42,
            pad_token_id=pad_id,
            initializer_range=0.4,
            id2label={number: f"label {number}" for number in range(labels)},
            label2id={f"label {number}": number for number in range(labels)},
            problem_type=problem_type,
        )
        kind = getattr(transformers, f"{architecture}ForSequenceClassification")
        model = kind._from_config(config, attn_implementation="eager").eval().requires_grad_(False)
        model.save_pretrained(folder)
        save_tokenizer(folder, pad_id)
        (folder / "onnx").mkdir()
        _export(model, folder / "onnx" / "model.onnx", has_token_types=architecture == "Bert", **inputs)
        return folder

    return create


def _export(model: Any, file: Path, *, has_token_types: bool, ids_name: str = "input_ids") -> None:
    import torch

    ids = torch.full((2, 7), 5)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0  # otherwise tracing would leave the mask out
    values = {"input_ids": ids, "attention_mask": mask}
    if has_token_types:
        values["token_type_ids"] = torch.zeros_like(ids)

    names = [ids_name, *list(values)[1:]]
    model.config.return_dict = False  # tensors only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        torch.onnx.export(
            model,
            tuple(values.values()),
            str(file),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def _scores_of_transformers(folder: Path, labels: Sequence[str]) -> list[list[float]]:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    answers = classify(list(TEXTS), truncation=True)
    found = [{entry["label"]: entry["score"] for entry in entries} for entries in answers]
    return [[scores[label] for label in labels] for scores in found]


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(2, None), (3, None), (7, None), (3, "multi_label_classification")]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_scores__are_those_of_transformers(
    export: Export, architecture: str, labels: int, problem_type: str | None
) -> None:
    folder = export(architecture, labels, problem_type)
    client = await ProcessClient.start(hub.load(folder))
    rows = await client.score(TEXTS)
    await client.close()
    expected = _scores_of_transformers(folder, client.card.labels)
    assert [list(row.scores) for row in rows] == [pytest.approx(row, abs=1e-3) for row in expected]
    assert [row.truncated for row in rows] == [False, False, False, False, True]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens__are_those_of_transformers(export: Export, architecture: str) -> None:
    from transformers import AutoTokenizer

    folder = export(architecture, 2)
    expected = AutoTokenizer.from_pretrained(folder)(list(TEXTS), truncation=True)["input_ids"]
    encoded = OnnxEngine(hub.load(folder)).encode(TEXTS)
    assert [list(text.ids) for text in encoded] == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dynamically_quantised_graph__is_independent_of_the_batch(export: Export, architecture: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    folder = export(architecture, 3)
    quantize_dynamic(folder / "onnx" / "model.onnx", folder / "onnx" / "model_quantized.onnx")
    engine = OnnxEngine(hub.load(folder, "onnx/model_quantized.onnx"))
    engine.separate_texts_if_needed()
    encoded = engine.encode(TEXTS)
    together = engine.score(encoded)
    assert together == [pytest.approx(engine.score([text])[0], abs=1e-3) for text in encoded]
    expected = _scores_of_transformers(folder, engine.card.labels)
    assert together == [pytest.approx(row, abs=0.2) for row in expected]


def test_unknown_input__names_the_cure(export: Export) -> None:
    folder = export("Bert", 2, ids_name="pixel_values")
    with pytest.raises(ModelError, match=r"\(see pixel_values\): export it with `optimum-cli"):
        OnnxEngine(hub.load(folder))


def test_positions_fewer_than_the_tokenizer_allows__bound_the_texts(export: Export) -> None:
    folder = export("Roberta", 2)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 512}))
    engine = OnnxEngine(hub.load(folder))
    assert engine.card.max_tokens == 40
    assert len(engine.score(engine.encode(["good " * 60]))) == 1
