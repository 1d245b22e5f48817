"""`make bench` goes on where it stopped, and keeps going when a part fails."""

from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks import results
from benchmarks.results import Measure


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks: one works, one breaks after its first line; results go there too."""
    folder = tmp_path / "parts"
    monkeypatch.setattr(bench, "HERE", folder)
    monkeypatch.setattr(bench, "PLACE", folder)
    monkeypatch.setattr(results, "PLACE", folder)
    benchmark(folder, "works", 'print("| a | b |")')
    benchmark(folder, "breaks", 'print("started"); raise SystemExit(3)')
    return folder


def benchmark(folder: Path, name: str, program: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__main__.py").write_text(program)


def test_parts__are_found_in_the_folder(parts: Path) -> None:
    assert bench.parts() == ["breaks", "works"]
    benchmark(parts, "edge", "")
    assert bench.parts() == ["edge", "breaks", "works"]


def test_a_part_that_fails__is_named_and_the_next_one_runs(parts: Path) -> None:
    assert bench.run(["breaks", "works"], again=False) == ["breaks"]
    assert (parts / "works.md").read_text() == "| a | b |\n"
    assert (parts / "breaks.md.part").read_text() == "started\n"


def test_a_part_that_is_done__runs_again_only_when_asked(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(["works"], again=False)
    benchmark(parts, "works", 'print("other")')
    assert bench.run(["works"], again=False) == []
    assert "already done" in capsys.readouterr().out
    assert (parts / "works.md").read_text() == "| a | b |\n"
    bench.run(["works"], again=True)
    assert (parts / "works.md").read_text() == "other\n"


def test_part_that_fails_after_it_measured__leaves_nothing_for_the_summary(parts: Path) -> None:
    for part in ("breaks", "works"):
        results.save(part, [Measure("ms", "less", "us", {"us": [1.0]})])
    bench.run(["breaks", "works"], again=False)
    assert results.load("breaks") is None
    assert results.load("works") is not None
