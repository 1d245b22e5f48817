"""Merging an adapter: the low-rank product is added where it belongs, and nothing else changes."""

import numpy as np
from training.weights import Array, merge

LAYER = "base_model.model.bert.encoder.layer.0.attention.self.query"


def draw(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_pair_of_factors__is_added_to_its_weight_at_its_scale() -> None:
    weight, down, up = draw(4, 4), draw(2, 4), draw(4, 2)
    merged = merge(
        {"encoder.layer.0.attention.self.query.weight": weight},
        {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up},
        scale=2.0,
    )
    np.testing.assert_allclose(
        merged["bert.encoder.layer.0.attention.self.query.weight"], weight + 2 * up @ down, rtol=1e-5
    )


def test_classifier_of_the_adapter__is_taken_whole() -> None:
    head = draw(2, 4)
    merged = merge({}, {"base_model.model.classifier.weight": head}, scale=2.0)
    np.testing.assert_array_equal(merged["classifier.weight"], head)
