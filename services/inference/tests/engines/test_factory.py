"""Tests of the choice of engine; the choice of torch is tested where torch is not."""

import shutil
from pathlib import Path

import pytest

from inference.engines.base import ModelError
from inference.engines.factory import Device, EngineName, Torch, select_engine, usable_cores
from inference.models import bundle


def absent() -> Torch:
    return Torch(is_installed=False, has_gpu=False)


def not_needed() -> Torch:
    raise AssertionError("importing torch takes seconds and is not needed")


async def test_bundled_model__is_served_on_every_core_and_checks_itself() -> None:
    chosen = select_engine("auto", "bundled", "auto", detect=absent)
    client = await chosen.create()
    assert (client.card.engine, client.card.device) == ("onnx", "cpu")
    assert chosen.workers == usable_cores()
    await client.close()


@pytest.mark.parametrize(("engine", "device"), [("onnx", "auto"), ("onnx", "cpu"), ("auto", "cpu")])
def test_cpu__never_imports_torch(engine: EngineName, device: Device) -> None:
    select_engine(engine, "bundled", device, detect=not_needed)


@pytest.mark.parametrize(
    ("engine", "model", "device"),
    [
        ("torch", "bundled", "auto"),
        ("auto", "bundled", "cuda"),
        ("auto", "someone/some-model", "auto"),
    ],
)
def test_torch_needed_but_not_installed__names_the_cure(engine: EngineName, model: str, device: Device) -> None:
    with pytest.raises(ModelError, match=r"pip install 'sluice-inference\[torch\]'"):
        select_engine(engine, model, device, detect=absent)


def test_built_folder__is_served_on_the_cpu_despite_a_gpu(tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.BUNDLED, tmp_path / "built")

    def has_gpu() -> Torch:
        return Torch(is_installed=True, has_gpu=True)

    assert select_engine("auto", str(folder), "auto", detect=has_gpu).workers == usable_cores()
    with pytest.raises(ModelError, match="INFERENCE_DEVICE=cpu"):
        select_engine("auto", str(folder), "cuda", detect=has_gpu)


def test_folder_with_graph_and_weights__needs_torch_only_on_a_gpu(tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.BUNDLED, tmp_path / "both")
    (folder / "model.safetensors").touch()
    assert select_engine("auto", str(folder), "auto", detect=absent).workers == usable_cores()
    with pytest.raises(ModelError, match="make torch"):
        select_engine("auto", str(folder), "cuda", detect=absent)
