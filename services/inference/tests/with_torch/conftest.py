"""Small random classifiers on disk, as transformers writes them."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

WORDS = ("a", "film", "so", "good", "bad", "dull", "and", "long", "it", "is", "not", "great", "fun", "slow", "cast")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture
def words() -> Sequence[str]:
    return WORDS


@pytest.fixture
def create_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Call it for a folder with a tiny BERT, its weights drawn from `seed`, that knows WORDS and takes 40 tokens."""
    numbers = itertools.count()

    def create(
        seed: int = 0,
        labels: Sequence[str] = ("sad", "glad", "mad"),
        vocabulary: int = len(_SPECIAL + WORDS),
        problem_type: str | None = None,
    ) -> Path:
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(seed)
        folder = tmp_path / f"classifier-{next(numbers)}"
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=40,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            problem_type=problem_type,
            initializer_range=0.2,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        _save_tokenizer(folder)
        return folder

    return create


@pytest.fixture
def classifier(create_classifier: Callable[..., Path]) -> Path:
    return create_classifier()


@pytest.fixture
def save_tokenizer() -> Callable[..., None]:
    return _save_tokenizer


def _save_tokenizer(folder: Path, pad_id: int = 0) -> None:
    from transformers import BertTokenizer

    specials = list(_SPECIAL)
    specials.insert(pad_id, specials.pop(0))
    vocabulary = {token: number for number, token in enumerate([*specials, *WORDS])}
    BertTokenizer(vocab=vocabulary, model_max_length=40).save_pretrained(folder)
