"""Training an adapter on a few rows: it learns them, repeats itself, and leaves files that anyone can read."""

from pathlib import Path
from typing import Any

import pytest
from training.quality_gate import Row

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft calls what transformers has renamed
]

ROWS = [
    Row(1, "so good and so great"),
    Row(0, "bad and dull"),
    Row(1, "great fun"),
    Row(0, "slow and long and bad"),
] * 4


@pytest.fixture
def trained(classifier: Path) -> Any:
    return _train(classifier)


def _train(classifier: Path, rate: float = 1e-2) -> Any:
    import torch
    from training.finetune import create_model, train

    from inference.engines.onnx import tokenizer_for

    torch.manual_seed(0)
    tokenizer = tokenizer_for(classifier / "tokenizer.json", 40)
    model = create_model(classifier, labels=3, rank=4)
    assert list(train(model, tokenizer, ROWS, epochs=15, batch=8, rate=rate, seed=0)) == list(range(1, 16))
    return model, tokenizer


def test_training__learns_its_rows(trained: Any) -> None:
    from training.finetune import evaluate

    model, tokenizer = trained
    assert evaluate(model, tokenizer, ROWS).accuracy == 1.0


def test_diverging_training__names_the_rate(classifier: Path) -> None:
    with pytest.raises(SystemExit, match=r"epoch 1, step .*lower --rate"):
        _train(classifier, rate=float("inf"))


def test_leaked_evaluation_texts__are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    from training.finetune import warn_of_leaks

    warn_of_leaks(ROWS, [Row(1, "great fun"), Row(0, "great fun"), Row(1, "new")])
    assert "trained on: 1;" in capsys.readouterr().err
    warn_of_leaks(ROWS, [Row(1, "new")])
    assert not capsys.readouterr().err


def test_saved_adapter__is_readable_by_every_user(trained: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file
    from training.finetune import save

    other = tmp_path / "adapter" / "key"
    other.parent.mkdir()
    other.touch(0o600)
    save(trained[0], other.parent)
    files = {file.name: file.stat().st_mode & 0o777 for file in other.parent.iterdir()}
    assert files.pop("key") == 0o600
    assert set(files.values()) == {0o644}
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("lora_A" in name for name in names)
    assert "base_model.model.classifier.weight" in names


@pytest.mark.parametrize("place", ["file", "file/adapter"])
def test_unwritable_folder__is_reported_before_training(tmp_path: Path, place: str) -> None:
    from training import finetune

    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="--out"):
        finetune.main(["absent.tsv", "--eval", "absent.tsv", "--out", str(tmp_path / place)])
