"""Writes the bundled model in float32, as a folder for `transformers`. Run it in services/inference."""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from safetensors.numpy import load_file, save_file
from training.weights import encoder_folder, merge


def main(out: Path) -> None:
    package = Path("inference") / "models"
    encoder, adapter = encoder_folder(), package / "adapter"
    lora = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    labels = json.loads((package / "bundled" / "card.json").read_text(encoding="utf-8"))["labels"]
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["BertForSequenceClassification"],
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    out.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (encoder / file).exists():
            shutil.copy(encoder / file, out)
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    merged = merge(
        load_file(encoder / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
        scale=lora["lora_alpha"] / lora["r"],
    )
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
