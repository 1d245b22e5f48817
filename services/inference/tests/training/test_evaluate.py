"""The figures of a model against cases worked out by hand."""

from pathlib import Path

import pytest
from training.evaluate import agreement, calibration_error, macro_f1, main, quality


def test_perfect_and_certain_model__has_no_error() -> None:
    found = quality([0, 1, 1], [(1.0, 0.0), (0.0, 1.0), (0.0, 1.0)])
    assert (found.rows, found.accuracy, found.macro_f1, found.calibration_error) == (3, 1, 1, 0)


def test_rare_label_never_found__halves_macro_f1() -> None:
    assert macro_f1([0] * 9 + [1], [0] * 10) == pytest.approx((18 / 19 + 0) / 2)


def test_label_only_found_wrongly__counts_too() -> None:
    assert macro_f1([0, 0], [0, 2]) == pytest.approx((2 / 3 + 0) / 2)


def test_certain_and_always_wrong__is_off_by_one() -> None:
    assert calibration_error([1.0, 1.0], [False, False]) == 1


def test_right_as_often_as_it_claims__is_calibrated() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)


def test_bins_of_confidence__do_not_make_up_for_one_another() -> None:
    assert calibration_error([1.0, 0.5], [False, True]) == pytest.approx((1.0 + 0.5) / 2)


def test_agreement__is_about_labels_not_scores() -> None:
    assert agreement([(0.9, 0.1), (0.4, 0.6)], [(0.6, 0.4), (0.7, 0.3)]) == 0.5


def test_nothing_to_judge__is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        quality([], [])


def test_bundled_model__is_judged_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.tsv").write_text("1\tI love this film.\n0\tA dull, lifeless mess.\n", encoding="utf-8")
    main([str(tmp_path / "rows.tsv"), "--model", "onnx:bundled", "--model", "onnx:bundled"])
    first, second = capsys.readouterr().out.splitlines()
    assert "accuracy=1.0" in first
    assert second.endswith("agrees with the first on 100.00%")


def test_unknown_engine__is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected onnx:MODEL or torch:MODEL"):
        main([str(tmp_path / "rows.tsv"), "--model", "tf:bundled"])
