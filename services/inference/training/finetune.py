"""Trains a LoRA adapter for the encoder on labelled rows.

It runs on a GPU if torch finds one, otherwise on the CPU, where a few thousand rows take minutes. `training.build
--adapter` builds a model folder from the result.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from tokenizers import Encoding, Tokenizer
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from inference.engines.onnx import tokenizer_for
from training.evaluate import Quality, quality
from training.quality_gate import Row, read_rows
from training.weights import encoder_folder

# Every linear layer; full fine-tuning of the same encoder scored no better.
LINEAR_LAYERS = [
    "query",
    "key",
    "value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
    "pooler.dense",
]
DROPOUT = 0.05
LABEL_SMOOTHING = 0.08
WEIGHT_DECAY = 0.01
WARM_UP = 0.06
MAX_TOKENS = 128
EVALUATION_BATCH = 64


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    require_writable(options.out)
    torch.manual_seed(options.seed)
    rows = read_rows(options.rows, options.labels)
    held_out = read_rows(options.eval, options.labels)
    warn_of_leaks(rows, held_out)
    encoder = encoder_folder()
    tokenizer = tokenizer_for(encoder / "tokenizer.json", MAX_TOKENS)
    model = create_model(encoder, options.labels, options.rank)
    for epoch in train(model, tokenizer, rows, options.epochs, options.batch, options.rate, options.seed):
        _say(f"epoch {epoch}: {evaluate(model, tokenizer, held_out)}")
    save(model, options.out)
    _say(f"wrote {options.out}")


def require_writable(folder: Path) -> None:
    """Create `folder` if needed. Raises SystemExit if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"--out {folder}: {error.strerror}")


def warn_of_leaks(rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Report evaluation texts that are also training texts."""
    if leaks := len({row.text for row in rows} & {row.text for row in held_out}):
        _say(f"texts both in --eval and trained on: {leaks}; the figures are too good by them")


def create_model(encoder: Path, labels: int, rank: int) -> Any:
    """Return the frozen encoder with a trainable adapter and a new classification head."""
    base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=labels, local_files_only=True)
    adapter = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, lora_dropout=DROPOUT, target_modules=LINEAR_LAYERS
    )
    return get_peft_model(base, adapter).to("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model: Any, tokenizer: Tokenizer, rows: Sequence[Row], epochs: int, batch: int, rate: float, seed: int
) -> Iterator[int]:
    """Yield the number of each finished epoch. The same seed on the same machine gives the same weights.

    Raises SystemExit when the loss is not finite.
    """
    encodings = tokenizer.encode_batch([row.text for row in rows])
    steps = -(-len(rows) // batch)
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=rate, weight_decay=WEIGHT_DECAY
    )
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * steps * epochs), steps * epochs)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    order = list(range(len(rows)))
    draw = random.Random(seed)
    for epoch in range(1, epochs + 1):
        draw.shuffle(order)
        model.train()
        for step in range(steps):
            places = order[step * batch : (step + 1) * batch]
            labels = torch.tensor([rows[place].label for place in places], device=model.device)
            loss = loss_of(_logits(model, [encodings[place] for place in places]), labels)
            if not loss.isfinite():
                sys.exit(f"\nepoch {epoch}, step {step + 1}: the loss is not finite; try a lower --rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            _progress(epoch, epochs, step + 1, steps, loss.item())
        yield epoch


def evaluate(model: Any, tokenizer: Tokenizer, rows: Sequence[Row]) -> Quality:
    model.eval()
    encodings = tokenizer.encode_batch([row.text for row in rows])
    scores: list[list[float]] = []
    with torch.inference_mode():
        for start in range(0, len(encodings), EVALUATION_BATCH):
            scores += _logits(model, encodings[start : start + EVALUATION_BATCH]).softmax(-1).tolist()
    return quality([row.label for row in rows], scores)


def save(model: Any, folder: Path) -> None:
    """Other files in `folder` are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        model.save_pretrained(temporary)
        for file in Path(temporary).iterdir():
            file.chmod(0o644)  # safetensors writes 0600
            file.replace(folder / file.name)


def _logits(model: Any, encodings: Sequence[Encoding]) -> Any:
    longest = max(len(encoding.ids) for encoding in encodings)
    ids = torch.zeros((len(encodings), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
        mask[row, : len(encoding.ids)] = 1
    return model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits


def _progress(epoch: int, epochs: int, step: int, steps: int, loss: float) -> None:
    end = "\n" if step == steps else ""
    print(f"\repoch {epoch}/{epochs}, step {step}/{steps}, loss {loss:.3f}", end=end, file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description="Train a LoRA adapter.")
    parser.add_argument("rows", type=Path, nargs="+", help="files of label<TAB>text to train on")
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="files to evaluate each epoch on")
    parser.add_argument("--out", type=Path, required=True, help="the adapter's folder")
    parser.add_argument("--labels", type=int, default=2, help="how many labels there are (default: 2)")
    parser.add_argument("--epochs", type=_positive, default=3)
    parser.add_argument("--batch", type=_positive, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate (default: 1e-3)")
    parser.add_argument("--rank", type=_positive, default=24, help="rank of the adapter's matrices (default: 24)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
