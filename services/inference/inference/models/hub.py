"""Classifiers in the Hub's ONNX layout: `config.json`, `tokenizer.json`, and a graph in the folder or in `onnx/`."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from inference.engines.base import ModelCard, ModelError
from inference.models import bundle
from inference.models.bundle import Bundle

CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_PREFERRED: Final = ("model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx")
_LONGEST: Final = 8192
_UNSTATED: Final = 512
_OFFSET_POSITIONS: Final = ("roberta", "camembert", "longformer", "mpnet")  # they count from behind the padding's


def open_folder(folder: Path, onnx_file: str = "") -> Bundle:
    """Read a folder that `training.build` wrote, or one in the Hub's layout. Raises ModelError."""
    if (folder / bundle.CARD).is_file() or not (folder / CONFIG).is_file():
        return bundle.load(folder)
    return load(folder, onnx_file)


def onnx_files(folder: Path) -> list[str]:
    """Return the graphs in `folder`, as paths relative to it."""
    files = [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
    return sorted(file.relative_to(folder).as_posix() for file in files)


def load(folder: Path, onnx_file: str = "") -> Bundle:
    """`onnx_file` chooses among several graphs. Raises ModelError."""
    graph = folder / _choose(folder, onnx_file)
    tokenizer = folder / bundle.TOKENIZER
    if not tokenizer.is_file():
        raise ModelError(
            f"{folder} has no {bundle.TOKENIZER}: download it from the model's repository, or write it with "
            f"transformers: AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    config = _read_object(folder / CONFIG)
    card = ModelCard(
        name=folder.resolve().name,
        revision=_revision(graph, tokenizer, folder / CONFIG),
        labels=_labels(config, folder / CONFIG),
        max_tokens=_max_tokens(config, folder / TOKENIZER_CONFIG),
        engine="onnx",
        device="cpu",
        activation=_activation(config, folder / CONFIG),
    )
    return Bundle(folder, graph, tokenizer, card, reference=(), is_optimised=False, pad_id=_pad_id(config))


def _choose(folder: Path, onnx_file: str) -> str:
    found = onnx_files(folder)
    if onnx_file:
        if not (folder / onnx_file).is_file():
            raise ModelError(f"{folder} has no {onnx_file}: set INFERENCE_ONNX_FILE to one of {', '.join(found)}")
        return onnx_file
    for name in _PREFERRED:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelError(f"{folder} has several graphs: set INFERENCE_ONNX_FILE to one of {', '.join(found)}")
    raise ModelError(
        f"{folder} has no ONNX graph: export it with "
        f"`optimum-cli export onnx --task text-classification --model {folder} {folder}/onnx`"
    )


def _labels(config: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = config.get("id2label")
    if not isinstance(names, dict):
        example = '"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}'
        raise ModelError(f"{file} names no labels: add them in the order of the model's scores, such as {example}")
    numbers = [str(number) for number in range(len(names))]
    if sorted(names) != sorted(numbers):
        raise ModelError(f"{file}: number the labels in id2label from 0")
    if len(names) < 2:
        raise ModelError(f"{file} names one label: a served model must choose between two or more")
    return tuple(str(names[number]) for number in numbers)


def _activation(config: dict[str, Any], file: Path) -> Any:
    problem = config.get("problem_type") or "single_label_classification"
    activations = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
    if problem not in activations:
        raise ModelError(f"{file}: problem_type is {problem!r}: only {' and '.join(activations)} can be served")
    return activations[problem]


def _max_tokens(config: dict[str, Any], tokenizer_config: Path) -> int:
    """Return the tokenizer's limit if it has one, never more than the model's positions."""
    stated = _read_object(tokenizer_config).get("model_max_length") if tokenizer_config.is_file() else None
    limit = int(stated) if stated and stated <= _LONGEST else None
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return limit or _UNSTATED
    if any(family in str(config.get("model_type")) for family in _OFFSET_POSITIONS):
        positions -= _pad_id(config) + 1
    return min(limit or positions, positions, _LONGEST)


def _pad_id(config: dict[str, Any]) -> int:
    return int(config.get("pad_token_id") or 0)


def _revision(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is not JSON: download it again: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object: download it again")
    return content
