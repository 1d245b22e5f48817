"""The bundled model in the real runtime: right, the same whatever is beside it, and clear about what it cannot load."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from inference.engines.base import ModelError
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


def test_scores__are_probabilities(engine: OnnxEngine, bundled: Bundle) -> None:
    for scores in engine.score(engine.encode([each.text for each in bundled.reference])):
        assert sum(scores) == pytest.approx(1)
        assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_in_a_batch__change_neither_label_nor_score(engine: OnnxEngine, bundled: Bundle, seed: int) -> None:
    encoded = engine.encode([each.text for each in bundled.reference])
    alone = [engine.score([text])[0] for text in encoded]
    order = list(range(len(encoded)))
    random.Random(seed).shuffle(order)
    together = engine.score([encoded[place] for place in order])
    for place, scores in zip(order, together, strict=True):
        assert scores == pytest.approx(alone[place], abs=SAME)
        assert label(scores) == label(alone[place])


def test_no_texts__give_no_scores(engine: OnnxEngine) -> None:
    assert engine.score(engine.encode([])) == []


def test_text_over_the_limit__is_cut_and_says_so(engine: OnnxEngine) -> None:
    [long, short] = engine.encode(["good " * 2_000, "good"])
    assert (long.tokens, long.truncated) == (engine.card.max_tokens, True)
    assert (short.tokens, short.truncated) == (3, False)
    assert len(engine.score([long, short])) == 2


def test_text_at_the_limit__is_whole(engine: OnnxEngine) -> None:
    words = engine.card.max_tokens - 2
    [fits, exceeds] = engine.encode(["good " * words, "good " * (words + 1)])
    assert (fits.truncated, exceeds.truncated) == (False, True)
    assert fits.tokens == exceeds.tokens


@pytest.mark.parametrize("text", ["", " ", "\x00", "\u200b", "🤷🏽‍♀️", "שלום", "a\u0301" * 300, "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\ufffd"])
def test_any_unicode__is_scored(engine: OnnxEngine, text: str) -> None:
    [scores] = engine.score(engine.encode([text]))
    assert sum(scores) == pytest.approx(1)


def test_threads_that_encode_at_once__get_their_own_tokens(engine: OnnxEngine, bundled: Bundle) -> None:
    texts = [each.text for each in bundled.reference]
    expected = engine.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(engine.encode, [texts] * 8))


def test_file_that_is_no_model__is_malformed(bundled: Bundle, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.onnx is not a model"):
        OnnxEngine(replace(bundled, model=tmp_path / "model.onnx"))


def test_file_that_is_no_tokenizer__is_malformed(bundled: Bundle, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        OnnxEngine(replace(bundled, tokenizer=tmp_path / "tokenizer.json"))


def test_two_engines__share_nothing_that_closing_one_takes_away(engine: OnnxEngine, bundled: Bundle) -> None:
    other = OnnxEngine(bundled)
    encoded = other.encode(["I love this."])
    expected = other.score(encoded)
    other.close()
    assert engine.score(encoded) == expected
