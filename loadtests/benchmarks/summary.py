"""Writes the summary of all results into docs/benchmarks.md, and a plot of each benchmark."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from benchmarks.results import Measure

DOCS: Final = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench writes -->"
_OURS, _THEIRS, _LOG_FROM = "#1f6f8b", "#b8c4c9", 30.0


def write(parts: Sequence[str]) -> None:
    """Replace the summary. Parts without results are named."""
    found = {part: results.load(part) for part in parts}
    text = "\n".join(lines({part: one for part, one in found.items() if one}, [p for p in parts if not found[p]]))
    file = DOCS / "benchmarks.md"
    page = file.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    file.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page), encoding="utf-8")
    for part, one in found.items():
        if one:
            _plot(part, one["measures"])
    print(f"summary: {file}")


def lines(found: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> Iterator[str]:
    """Return the summary of loaded results in Markdown."""
    yield from results.TABLE
    for part, one in found.items():
        for measure in one["measures"]:
            yield from results.rows(part, measure)
    yield "\nMedians, and the smallest and largest round. Below 1 × the other is better."
    yield ""
    yield from _machines(found)
    not_measured = [*missing, *(f"{name} ({part})" for part, one in found.items() for name in one["left_out"])]
    if not_measured:
        yield f"\nNot measured in this run: {', '.join(not_measured)}."
    for one in found.values():
        yield from (f"\n{note}" for note in one.get("notes", ()))
    yield ""
    yield from (f"![{part}](images/bench-{part}.png)" for part in found)


def _machines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Return the machines: common properties once, others by part."""
    shared = set.intersection(*(set(one["versions"].items()) for one in found.values())) if found else set()
    machines = {f"{one['cpu']}, {one['cores']} cores, {one['memory_gb']} GB, {one['system']}" for one in found.values()}
    if found:
        yield f"On {' and '.join(sorted(machines))}, with {_versions(shared)}.\n"
    yield "| benchmark | made (UTC) | load average | and with |\n|---|---|---:|---|"
    for part, one in found.items():
        yield f"| {part} | {one['at']} | {one['load_average']} | {_versions(one['versions'].items() - shared)} |"


def _versions(versions: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions))


def _plot(part: str, measures: Sequence[Measure]) -> None:
    from matplotlib.figure import Figure

    heights = [1 + len(measure.rounds) for measure in measures]
    figure = Figure(figsize=(8, 0.36 * sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(measures), squeeze=False, height_ratios=heights)
    for [axis], measure in zip(axes, measures, strict=True):
        _bars(axis, measure)
    images = DOCS / "images"
    images.mkdir(exist_ok=True)
    figure.savefig(images / f"bench-{part}.png", dpi=80, metadata={"Software": None})


def _bars(axis: Any, measure: Measure) -> None:
    names = [*measure.rounds][::-1]
    medians = [statistics.median(measure.rounds[name]) for name in names]
    spread = [
        [median - min(measure.rounds[name]) for name, median in zip(names, medians, strict=True)],
        [max(measure.rounds[name]) - median for name, median in zip(names, medians, strict=True)],
    ]
    colours = [_OURS if name == measure.ours else _THEIRS for name in names]
    bars = axis.barh(names, medians, xerr=spread, color=colours, ecolor="#555555", capsize=2)
    axis.bar_label(bars, [results.number(median) for median in medians], padding=8, fontsize=8)
    if min(medians) > 0 and max(medians) / min(medians) > _LOG_FROM:
        axis.set_xscale("log")
    axis.set_title(f"{measure.what} ({measure.better} is better)", fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.15)
