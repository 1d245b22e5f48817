"""The benchmark summary computes ratios in the right direction and lists what was not measured."""

from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks import results, summary
from benchmarks.results import Measure


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "PLACE", tmp_path)
    return tmp_path


def rows(*measures: Measure) -> list[str]:
    results.save("part", measures, {"peer": "1.2"})
    found = results.load("part")
    assert found is not None
    return [line for line in summary.lines({"part": found}, ["other"]) if line]


def test_more_is_better__ours_over_theirs() -> None:
    lines = rows(Measure("requests/s", "more", "us", {"us": [90, 100, 110], "them": [20, 10, 30]}, {"them": 8}))
    assert "| part | requests/s | 100 | 90.0…110 | them | 20.0 | 10.0…30.0 | 5.00 × | 8 × |" in lines


def test_less_is_better__theirs_over_ours() -> None:
    lines = rows(Measure("ms", "less", "us", {"us": [2.0], "them": [1.0], "others": [0.0]}))
    assert "| part | ms | 2.00 |  | them | 1.00 |  | 0.500 × |  |" in lines
    assert "| part | ms | 2.00 |  | others | 0.000 |  | 0.000 × |  |" in lines
    assert any("| ∞ |" in line for line in rows(Measure("calls", "less", "us", {"us": [0.0], "them": [1.0]})))


def test_versions_of_peers_and_missing_parts__are_listed() -> None:
    lines = rows(Measure("ms", "less", "us", {"us": [2.0], "them": [1.0]}))
    assert any("peer 1.2" in line and "Python 3" in line for line in lines)
    results.save("second", [Measure("ms", "less", "us", {"us": [2.0]})])
    both = {part: found for part in ("part", "second") if (found := results.load(part))}
    by_part = [line for line in summary.lines(both, []) if line.startswith(("| part | 20", "| second | 20"))]
    assert ["peer 1.2" in line for line in by_part] == [True, False]
    assert not any("Python 3" in line for line in by_part)
    assert any(line.strip() == "Not measured in this run: other." for line in lines)


def test_peer_that_was_left_out__is_named() -> None:
    results.save("edge", [Measure("ms", "less", "us", {"us": [2.0]})], left_out=["nginx", "haproxy"])
    found = results.load("edge")
    assert found is not None
    assert [*summary.lines({"edge": found}, ["other"])][-3].strip() == (
        "Not measured in this run: other, nginx (edge), haproxy (edge)."
    )


def test_part_without_results__is_none() -> None:
    assert results.load("never") is None


def test_page__has_rows_and_a_plot_of_every_benchmark() -> None:
    page = (summary.DOCS / "benchmarks.md").read_text(encoding="utf-8")
    written = page[page.index(summary.BEGIN) : page.index(summary.END)]
    for part in bench.parts():
        assert f"\n| {part} |" in written
        assert (summary.DOCS / "images" / f"bench-{part}.png").exists()
