"""The whole way of a new model, on the real encoder and a few rows: trained, built, loaded and served."""

import json
from pathlib import Path

import pytest

from inference.models import bundle
from inference.models.bundle import Bundle

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft calls what transformers has renamed
]

GOOD = ("wonderful", "lovely", "brilliant", "charming", "superb", "delightful", "excellent", "moving")
BAD = ("awful", "dreadful", "boring", "dull", "terrible", "horrible", "lifeless", "tedious")
FACTS = {"name": "tiny", "labels": ["SAD", "GLAD"], "max_tokens": 64}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.tsv"
    lines = [f"{label}\tA {word} film." for label, words in enumerate((BAD, GOOD)) for word in words]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture
def built(rows: Path, tmp_path: Path) -> Bundle:
    from training import build, finetune

    adapter, card, out = tmp_path / "adapter", tmp_path / "card.json", tmp_path / "model"
    card.write_text(json.dumps(FACTS), encoding="utf-8")
    trained = ["--out", str(adapter), "--epochs", "12", "--batch", "8", "--rate", "5e-3", "--rank", "4"]
    finetune.main([str(rows), "--eval", str(rows), *trained])
    build.main(["--eval", str(rows), "--adapter", str(adapter), "--card", str(card), "--out", str(out)])
    return bundle.load(out)


async def test_trained_adapter__is_built_and_served(built: Bundle) -> None:
    from inference.engines.client import ProcessClient

    assert (built.card.name, built.card.labels, built.card.max_tokens) == ("tiny", ("SAD", "GLAD"), 64)
    scores = json.loads((built.folder / bundle.CARD).read_text(encoding="utf-8"))["scores"]
    assert scores["int8_macro_f1"] == scores["int8_accuracy"] == 1.0
    assert 0 <= scores["int8_calibration_error"] < 0.5
    client = await ProcessClient.start(built)
    rows = await client.score(["A superb, moving film.", "A dull, lifeless film."])
    await client.close()
    glad = [row.scores[1] for row in rows]
    assert glad[0] > 0.5 > glad[1]
