"""The figures of a model against cases worked out by hand."""

from pathlib import Path

import pytest
from training.evaluate import calibration_error, macro_f1, main, quality


def test_perfect_and_certain_model__has_no_error() -> None:
    found = quality([0, 1, 1], [(1.0, 0.0), (0.0, 1.0), (0.0, 1.0)])
    assert (found.rows, found.accuracy, found.macro_f1, found.calibration_error) == (3, 1, 1, 0)


def test_macro_f1__counts_labels_that_were_only_predicted() -> None:
    assert macro_f1([0, 0], [0, 2]) == pytest.approx((2 / 3 + 0) / 2)


def test_accurate_confidence__is_calibrated() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)


def test_calibration_bins__do_not_cancel_out() -> None:
    assert calibration_error([1.0, 0.5], [False, True]) == pytest.approx((1.0 + 0.5) / 2)


def test_evaluate_command__reports_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.tsv").write_text("1\tI love this film.\n0\tA dull, lifeless mess.\n", encoding="utf-8")
    main([str(tmp_path / "rows.tsv"), "--model", "onnx:bundled", "--model", "onnx:bundled"])
    first, second = capsys.readouterr().out.splitlines()
    assert "accuracy=1.0" in first
    assert second.endswith("agrees with the first on 100.00%")


def test_unknown_engine__is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected onnx:MODEL or torch:MODEL"):
        main([str(tmp_path / "rows.tsv"), "--model", "tf:bundled"])
