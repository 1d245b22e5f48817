"""`make bench` resumes where it stopped, and continues when a part fails."""

from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks import results

SAVES = """
from pathlib import Path
from benchmarks import results
results.PLACE = Path(__file__).parents[1]
results.save("works", [results.against("ms", "less", [1.0], 2.0)])
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two benchmarks, one of which fails, and of their results."""
    folder = tmp_path / "parts"
    monkeypatch.setattr(bench, "HERE", folder)
    monkeypatch.setattr(results, "PLACE", folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[1]))
    benchmark(folder, "works", SAVES)
    benchmark(folder, "breaks", "raise SystemExit(3)")
    return folder


def benchmark(folder: Path, name: str, program: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__main__.py").write_text(program)


def test_parts__are_found_in_the_folder(parts: Path) -> None:
    assert bench.parts() == ["breaks", "works"]
    benchmark(parts, "edge", "")
    assert bench.parts() == ["edge", "breaks", "works"]


def test_part_that_fails__is_named_and_the_next_one_runs(parts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results.save("breaks", [results.against("ms", "less", [1.0], 2.0)])  # of an earlier run
    assert bench.run(["breaks", "works"], again=True) == ["breaks"]
    assert results.load("breaks") is None
    assert "| works | ms | 1.00 |  | target | 2.00 |  | 2.00 × | 1 × |" in capfd.readouterr().out


def test_finished_part__runs_again_only_when_asked(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(["works"], again=False) == []
    benchmark(parts, "works", "raise SystemExit(3)")
    assert bench.run(["works"], again=False) == []
    assert "already done" in capsys.readouterr().out
    assert bench.run(["works"], again=True) == ["works"]
