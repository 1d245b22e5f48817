"""The torch engine on a GPU: graphs give the model's scores, independent of the batch."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.cuda]

ROUNDING = 5e-3


def _open(source: Path, device: str) -> Any:
    from inference.engines.torch.engine import TorchEngine

    return TorchEngine(str(source), device=device)


def _forward(source: Path, model: Any = None) -> Any:
    """A forward pass with a small grid and no graphs yet."""
    import torch

    from inference.engines.torch.cuda_graphs import CudaForward
    from inference.engines.torch.models import load
    from inference.engines.torch.shapes import ShapeGrid

    loaded = load(str(source))
    grid = ShapeGrid(loaded.card.max_tokens, 256)
    return CudaForward(model or loaded.model, torch.device("cuda"), grid, len(loaded.card.labels), loaded.pad_id, False)


@pytest.fixture
def engine(classifier: Path) -> Iterator[Any]:
    engine = _open(classifier, "cuda")
    yield engine
    engine.close()


@pytest.fixture
def encoded(engine: Any, words: Sequence[str]) -> list[Any]:
    """Texts of all lengths, more than one piece holds."""
    chance = random.Random(0)
    texts = [" ".join(chance.choices(words, k=chance.randint(1, 38))) for _ in range(1500)]
    return list(engine.encode(texts))


def _largest_move(have: Sequence[Sequence[float]], want: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for row, wanted in zip(have, want, strict=True) for a, b in zip(row, wanted, strict=True))


def test_scores__are_those_of_float32(classifier: Path, engine: Any, encoded: list[Any]) -> None:
    on_cpu = _open(classifier, "cpu")

    assert _largest_move(engine.score(encoded), [on_cpu.score([text])[0] for text in encoded]) < ROUNDING


def test_scores__do_not_depend_on_the_neighbours(engine: Any, encoded: list[Any]) -> None:
    alone = [engine.score([text])[0] for text in encoded]

    assert _largest_move(engine.score(encoded), alone) < ROUNDING
    assert _largest_move(engine.score(encoded[::-1]), alone[::-1]) < ROUNDING


def test_two_concurrent_engines__agree(classifier: Path, engine: Any, encoded: list[Any]) -> None:
    other = _open(classifier, "cuda")
    alone = engine.score(encoded)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda scorer=scorer: answers.extend(scorer.score(encoded) for _ in range(20)))
        for scorer in (engine, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 40
    assert all(_largest_move(answer, alone) < ROUNDING for answer in answers)


def test_unwarmed_shape__is_captured_on_first_use(classifier: Path) -> None:
    forward = _forward(classifier)

    first = forward.run([(2, 6, 3)])
    assert forward.run([(2, 6, 3)]) == first
    assert forward.recorded == 1
    assert forward.run([(2, *[6] * 30, 3)]) != first
    assert forward.recorded == 2


def test_overlong_text__fails_and_the_next_is_scored(classifier: Path) -> None:
    forward = _forward(classifier)
    expected = forward.run([(2, 6, 3)])

    with pytest.raises(IndexError):
        forward.run([(2, 6, 3), (2, *[6] * 50, 3)])
    assert forward.run([(2, 6, 3)]) == expected


def test_data_dependent_model__runs_without_graphs(classifier: Path, looking: Callable[[Path], Any]) -> None:
    forward = _forward(classifier, looking(classifier))

    rows = forward.run([(2, 6, 3), (2, 7, 3)])

    assert forward.recorded == 0
    assert _largest_move(rows, _forward(classifier).run([(2, 6, 3), (2, 7, 3)])) < ROUNDING


@pytest.fixture
def looking() -> Callable[[Path], Any]:
    """Call it for the classifier in a folder, with a pass that copies a number back to the CPU on the way."""

    def create(folder: Path) -> Any:
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(folder).eval().requires_grad_(False)
        model.register_forward_pre_hook(
            lambda _module, _args, inputs: inputs["input_ids"].sum().item() and None, with_kwargs=True
        )
        return model

    return create
