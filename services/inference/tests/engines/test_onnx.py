"""The bundled model in the real runtime: its labels, and scores that are independent of the batch."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.engines.onnx import OnnxEngine
from inference.models import bundle
from inference.models.bundle import Bundle, self_check

SAME = 5e-3


@pytest.fixture(scope="module")
def bundled() -> Bundle:
    return bundle.load()


@pytest.fixture(scope="module")
def engine(bundled: Bundle) -> Iterator[OnnxEngine]:
    engine = OnnxEngine(bundled)
    yield engine
    engine.close()


def label(scores: tuple[float, ...]) -> int:
    return scores.index(max(scores))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love this.", "POSITIVE"),
        ("What a wonderful evening we had!", "POSITIVE"),
        ("Loved it ❤️", "POSITIVE"),
        ("The box was crushed and half the screws were missing.", "NEGATIVE"),
        ("the worst purchase i ever made", "NEGATIVE"),
    ],
)
def test_plain_opinions__are_labelled_right(engine: OnnxEngine, text: str, expected: str) -> None:
    [scores] = engine.score(engine.encode([text]))
    assert engine.card.labels[label(scores)] == expected


def test_reference_sentences__score_as_recorded(engine: OnnxEngine, bundled: Bundle) -> None:
    self_check(engine, bundled.reference, sample=len(bundled.reference))


@pytest.mark.parametrize("seed", range(3))
def test_scores__are_independent_of_the_batch(engine: OnnxEngine, bundled: Bundle, seed: int) -> None:
    encoded = engine.encode([each.text for each in bundled.reference])
    alone = [engine.score([text])[0] for text in encoded]
    order = list(range(len(encoded)))
    random.Random(seed).shuffle(order)
    together = engine.score([encoded[place] for place in order])
    for place, scores in zip(order, together, strict=True):
        assert scores == pytest.approx(alone[place], abs=SAME)
        assert label(scores) == label(alone[place])


def test_text_at_the_limit__is_not_truncated(engine: OnnxEngine) -> None:
    words = engine.card.max_tokens - 2
    [fits, exceeds] = engine.encode(["good " * words, "good " * (words + 1)])
    assert (fits.truncated, exceeds.truncated) == (False, True)
    assert fits.tokens == exceeds.tokens


@pytest.mark.parametrize("text", ["", " ", "\x00", "\u200b", "🤷🏽‍♀️", "שלום", "a\u0301" * 300, "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\ufffd"])
def test_any_unicode__is_scored(engine: OnnxEngine, text: str) -> None:
    [scores] = engine.score(engine.encode([text]))
    assert sum(scores) == pytest.approx(1)


def test_concurrent_encoding__returns_the_right_tokens(engine: OnnxEngine, bundled: Bundle) -> None:
    texts = [each.text for each in bundled.reference]
    expected = engine.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(engine.encode, [texts] * 8))
