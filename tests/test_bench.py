"""`make bench` goes on where it stopped, and keeps going when a part fails."""

from pathlib import Path

import bench
import pytest
import results
from results import Measure


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks: one works, one breaks after its first line; results go there too."""
    monkeypatch.setattr(bench, "HERE", tmp_path)
    monkeypatch.setattr(bench, "PLACE", tmp_path)
    monkeypatch.setattr(results, "PLACE", tmp_path)
    (tmp_path / "bench_works.py").write_text('print("| a | b |")')
    (tmp_path / "bench_breaks.py").write_text('print("started"); raise SystemExit(3)')
    return tmp_path


def test_parts__are_found_in_the_folder(parts: Path) -> None:
    assert bench.parts() == ["breaks", "works"]
    (parts / "bench_edge.py").touch()
    (parts / "benchmarks" / "limiter").mkdir(parents=True)
    (parts / "benchmarks" / "limiter" / "__main__.py").touch()
    assert bench.parts() == ["edge", "breaks", "limiter", "works"]


def test_package_below_benchmarks__runs_as_a_module(parts: Path) -> None:
    package = parts / "benchmarks" / "package"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text('print("of a package")')
    assert bench.run(["package"], again=False) == []
    assert (parts / "package.md").read_text() == "of a package\n"


def test_a_part_that_fails__is_named_and_the_next_one_runs(parts: Path) -> None:
    assert bench.run(["breaks", "works"], again=False) == ["breaks"]
    assert (parts / "works.md").read_text() == "| a | b |\n"
    assert (parts / "breaks.md.part").read_text() == "started\n"


def test_a_part_that_is_done__runs_again_only_when_asked(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(["works"], again=False)
    (parts / "bench_works.py").write_text('print("other")')
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
