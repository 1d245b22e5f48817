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
        (dataclasses.replace(PASSING, confident_agreement=0.994), "of the texts of which fp32 is sure"),
    ],
)
def test_candidate_below_one_threshold__is_refused_for_it(candidate: Comparison, reason: str) -> None:
    with pytest.raises(GateRefused, match=reason):
        require(candidate)


def test_candidate_below_all__is_told_every_reason() -> None:
    worst = Comparison(rows=1, reference_accuracy=1, accuracy=0, agreement=0, confident_agreement=0)
    assert len(worst.failures()) == 3


def test_candidate_better_than_its_reference__passes() -> None:
    require(dataclasses.replace(PASSING, accuracy=1.0))


def test_comparison__counts_labels_and_sure_texts_apart() -> None:
    rows = [Row(0, "a"), Row(1, "b"), Row(1, "c"), Row(0, "d")]
    reference = [SURE_OF_0, SURE_OF_1, LEANS_TO_1, LEANS_TO_1]
    candidate = [SURE_OF_0, LEANS_TO_1, LEANS_TO_0, LEANS_TO_1]
    assert compare(rows, reference, candidate) == Comparison(
        rows=4, reference_accuracy=0.75, accuracy=0.5, agreement=0.75, confident_agreement=1.0
    )


def test_nothing_to_compare__is_no_pass() -> None:
    with pytest.raises(ValueError, match="no rows"):
        compare([], [], [])


def test_rows_of_several_files__are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("0\tdull\n1\ta tab\tinside\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_text("1\tschön ❤️\n", encoding="utf-8")
    rows = read_rows([tmp_path / "a.tsv", tmp_path / "b.tsv"], labels=2)
    assert rows == [Row(0, "dull"), Row(1, "a tab\tinside"), Row(1, "schön ❤️")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_with_what_other_programs_end_lines_with__is_one_row(tmp_path: Path, end: str) -> None:
    text = "one\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029text"
    (tmp_path / "rows.tsv").write_bytes(f"0\t{text}{end}1\tlast".encode())
    assert read_rows([tmp_path / "rows.tsv"], labels=2) == [Row(0, text), Row(1, "last")]


@pytest.mark.parametrize("line", ["no tab", "2\ttoo high a label", "x\tno number", "-1\tnegative", "1\t", ""])
def test_line_that_is_no_row__is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.tsv").write_text(f"0\tfine\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.tsv:2: expected a label below 2"):
        read_rows([tmp_path / "rows.tsv"], labels=2)


def test_file_of_a_spreadsheet__is_read_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("0\tdull\r\n1\tfine\r\n", encoding="utf-8-sig")
    assert read_rows([tmp_path / "rows.tsv"], labels=2) == [Row(0, "dull"), Row(1, "fine")]


def test_file_in_another_encoding__is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("0\tdull\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"rows\.tsv: expected UTF-8"):
        read_rows([tmp_path / "rows.tsv"], labels=2)
