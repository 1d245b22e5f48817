"""The gate: every threshold holds on its own, and a failing candidate is refused in words."""

import dataclasses
from pathlib import Path

import pytest
from training.quality_gate import Comparison, GateRefused, Row, compare, read_rows, require

PASSING = Comparison(rows=1000, reference_accuracy=0.9, accuracy=0.895, agreement=0.98, confident_agreement=0.995)

SURE_OF_0, SURE_OF_1 = (4.0, -4.0), (-4.0, 4.0)
LEANS_TO_0, LEANS_TO_1 = (0.1, -0.1), (-0.1, 0.1)


def test_candidate_at_every_threshold__passes() -> None:
    require(PASSING)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (dataclasses.replace(PASSING, accuracy=0.894), "accuracy falls by 0.60%"),
        (dataclasses.replace(PASSING, agreement=0.979), "labels agree on 97.90%, less than 98.00%"),
        (dataclasses.replace(PASSING, confident_agreement=0.994), "of the texts where fp32 is confident"),
    ],
)
def test_candidate_below_one_threshold__is_refused(candidate: Comparison, reason: str) -> None:
    with pytest.raises(GateRefused, match=reason):
        require(candidate)


def test_comparison__counts_confident_texts_separately() -> None:
    rows = [Row(0, "a"), Row(1, "b"), Row(1, "c"), Row(0, "d")]
    reference = [SURE_OF_0, SURE_OF_1, LEANS_TO_1, LEANS_TO_1]
    candidate = [SURE_OF_0, LEANS_TO_1, LEANS_TO_0, LEANS_TO_1]
    assert compare(rows, reference, candidate) == Comparison(
        rows=4, reference_accuracy=0.75, accuracy=0.5, agreement=0.75, confident_agreement=1.0
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_with_other_line_separators__is_one_row(tmp_path: Path, end: str) -> None:
    text = "one\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029text"
    (tmp_path / "rows.tsv").write_bytes(f"0\t{text}{end}1\tlast".encode())
    assert read_rows([tmp_path / "rows.tsv"], labels=2) == [Row(0, text), Row(1, "last")]


@pytest.mark.parametrize("line", ["no tab", "2\ttoo high a label", "x\tno number", "-1\tnegative", "1\t", ""])
def test_malformed_row__is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.tsv").write_text(f"0\tfine\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.tsv:2: expected a label below 2"):
        read_rows([tmp_path / "rows.tsv"], labels=2)


def test_byte_order_mark__is_skipped(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("0\tdull\r\n1\tfine\r\n", encoding="utf-8-sig")
    assert read_rows([tmp_path / "rows.tsv"], labels=2) == [Row(0, "dull"), Row(1, "fine")]
