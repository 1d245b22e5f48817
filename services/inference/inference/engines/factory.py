"""Owns the choice of engine and what suits it; runs none."""

import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from inference.batching.worker import Supervision
from inference.engines.base import Engine, EngineClient, ModelError
from inference.engines.client import ProcessClient
from inference.engines.cores import usable_cores
from inference.engines.thread import ThreadClient
from inference.engines.tokenizer import RUN_TOKENS
from inference.models import bundle

EngineName = Literal["auto", "onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]

BUNDLED: Final = "bundled"
_TORCH_CONFIG: Final = "config.json"  # every folder that transformers can load has one
_GPU_BATCH_TOKENS: Final = 16_384  # what fills a GPU; more would only add latency


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How to make an engine and to replace it, how many suit this machine, and how many tokens suit one batch.

    With a `pipeline_depth` of two, an engine has its next batch before it has finished one.
    """

    create: Callable[[], Awaitable[EngineClient]]
    workers: int
    max_batch_tokens: int
    pipeline_depth: int = 1
    supervision: Supervision = field(default_factory=Supervision)


@dataclass(frozen=True, slots=True)
class Torch:
    """What of torch this machine has."""

    is_installed: bool
    has_gpu: bool


def detect_torch() -> Torch:
    """Imports torch, which takes seconds, if it is there."""
    if importlib.util.find_spec("torch") is None:
        return Torch(is_installed=False, has_gpu=False)
    import torch

    return Torch(is_installed=True, has_gpu=bool(torch.cuda.is_available()))


def select_engine(
    engine: EngineName, model: str, device: Device, look: Callable[[], Torch] = detect_torch
) -> EngineSpec:
    """What the settings ask for. Raises ModelError, which names the cure.

    `auto` takes torch where a GPU is asked for or found, and for a model that is not an ONNX folder; a folder in which
    there is nothing for torch it leaves to onnx.
    """
    is_onnx = model == BUNDLED or (Path(model) / bundle.MODEL).is_file()
    is_only_onnx = is_onnx and model != BUNDLED and not (Path(model) / _TORCH_CONFIG).is_file()
    if engine == "onnx" or (engine == "auto" and (is_only_onnx or (is_onnx and device == "cpu"))):
        return _onnx(model, device)
    torch = look()
    if engine == "auto" and is_onnx and device == "auto" and not torch.has_gpu:
        return _onnx(model, device)
    return _torch(model, device, torch)


def _onnx(model: str, device: Device) -> EngineSpec:
    if device == "cuda":
        raise ModelError("the onnx engine runs on the CPU: set INFERENCE_ENGINE=torch or INFERENCE_DEVICE=cpu")
    loaded = bundle.load(bundle.BUNDLED if model == BUNDLED else Path(model))
    return EngineSpec(partial(ProcessClient.start, loaded), usable_cores(), RUN_TOKENS, pipeline_depth=2)


def _torch(model: str, device: Device, torch: Torch) -> EngineSpec:
    if not torch.is_installed:
        raise ModelError(
            "torch is not installed, and these settings need it: pip install 'sluice-inference[torch]', "
            "or set INFERENCE_ENGINE=onnx, INFERENCE_DEVICE=cpu and INFERENCE_MODEL=bundled"
        )
    from inference.engines.torch.engine import TorchEngine  # torch is an extra

    def create() -> Engine:
        return TorchEngine(model, device)

    start = partial(ThreadClient.start, create)
    if device != "cpu" and torch.has_gpu:
        return EngineSpec(start, 1, _GPU_BATCH_TOKENS, pipeline_depth=2)
    return EngineSpec(start, usable_cores(), RUN_TOKENS)
