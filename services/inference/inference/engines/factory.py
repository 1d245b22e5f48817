"""The choice of engine, and how many of it suit this machine."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from inference.engines.base import RUN_TOKENS, Engine, EngineSpec, ModelError
from inference.engines.client import ProcessClient
from inference.engines.thread import ThreadClient
from inference.models import bundle, hub

EngineName = Literal["auto", "onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]

BUNDLED: Final = "bundled"
_TORCH_WEIGHTS: Final = ("*.safetensors", "pytorch_model*.bin")
_GPU_BATCH_TOKENS: Final = 16_384  # fills a GPU; more only adds latency
_CGROUP: Final = Path("/sys/fs/cgroup")
_QUOTAS: Final = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


@dataclass(frozen=True, slots=True)
class Torch:
    """What this machine has of torch."""

    is_installed: bool
    has_gpu: bool


def detect_torch() -> Torch:
    """Import torch, which takes seconds, if it is installed."""
    if importlib.util.find_spec("torch") is None:
        return Torch(is_installed=False, has_gpu=False)
    import torch

    return Torch(is_installed=True, has_gpu=bool(torch.cuda.is_available()))


def select_engine(
    engine: EngineName,
    model: str,
    device: Device,
    onnx_file: str = "",
    detect: Callable[[], Torch] = detect_torch,
) -> EngineSpec:
    """Return what the settings select. Raises ModelError, which names the cure.

    `auto` selects torch for a GPU and for models without an ONNX graph, and onnx for folders without weights for torch.
    """
    has_graph = model == BUNDLED or bool(hub.onnx_files(Path(model)))
    has_weights = model == BUNDLED or not has_graph or any(_has(model, name) for name in _TORCH_WEIGHTS)
    if engine == "onnx" or (engine == "auto" and has_graph and (device == "cpu" or not has_weights)):
        return _onnx(model, device, onnx_file)
    torch = detect()
    if engine == "auto" and has_graph and device == "auto" and not torch.has_gpu:
        return _onnx(model, device, onnx_file)
    return _torch(model, device, torch)


def _has(model: str, pattern: str) -> bool:
    return any(True for _ in Path(model).glob(pattern))


def _onnx(model: str, device: Device, onnx_file: str) -> EngineSpec:
    if device == "cuda":
        raise ModelError("the onnx engine runs on the CPU: set INFERENCE_ENGINE=torch or INFERENCE_DEVICE=cpu")
    loaded = hub.open_folder(bundle.BUNDLED if model == BUNDLED else Path(model), onnx_file)
    return EngineSpec(partial(ProcessClient.start, loaded), usable_cores(), RUN_TOKENS, pipeline_depth=2)


def _torch(model: str, device: Device, torch: Torch) -> EngineSpec:
    if not torch.is_installed:
        raise ModelError(
            "torch is not installed, and these settings need it: run `make torch` and start with "
            "`.venv-torch/bin/sluice run` (or pip install 'sluice-inference[torch]'), or set INFERENCE_ENGINE=auto, "
            "INFERENCE_DEVICE=cpu and INFERENCE_MODEL to a folder with an ONNX graph"
        )
    from inference.engines.torch.engine import TorchEngine  # torch is an extra

    def create() -> Engine:
        return TorchEngine(model, device)

    start = partial(ThreadClient.start, create)
    if device != "cpu" and torch.has_gpu:
        return EngineSpec(start, 1, _GPU_BATCH_TOKENS, pipeline_depth=2)
    return EngineSpec(start, usable_cores(), RUN_TOKENS)


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Return the cores that affinity and a container's quota leave this process, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(cgroup)))


def _quota_cores(cgroup: Path) -> int:
    for names in _QUOTAS:
        try:
            quota, period = map(int, " ".join((cgroup / name).read_text(encoding="ascii") for name in names).split())
        except (OSError, ValueError):  # no such file, or "max": no quota
            continue
        if quota > 0:  # version 1 has -1 for none
            return round(quota / period)
    return 1 << 16
