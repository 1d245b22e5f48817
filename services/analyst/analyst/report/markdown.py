"""A report as Markdown, for people and chat channels, with the same content as the JSON."""

from collections.abc import Iterator
from typing import Final

from analyst.report.format import number, show
from analyst.report.models import Figure, Finding, Reading, Report

_READINGS: Final[dict[Reading, str]] = {
    "current": "this window",
    "previous": "previous window",
    "delta_abs": "change",
    "delta_pct": "relative change",
    "threshold": "threshold",
}


def to_markdown(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    current = report.windows.current
    yield f"# Performance: {report.status.replace('_', ' ')}"
    yield ""
    yield f"{current.start:%Y-%m-%d %H:%M:%S} to {current.end:%Y-%m-%d %H:%M:%S} UTC"
    yield ""
    yield _escape(report.summary)
    if report.findings:
        yield "\n## Findings\n"
        yield from (_finding(finding) for finding in report.findings)
    if report.recommendations:
        yield "\n## What to do\n"
        for number_, item in enumerate(report.recommendations, 1):
            yield f"{number_}. **{_escape(item.action)}** ({item.priority} priority) `{item.how}`"
    if report.interpretation is not None:
        yield f"\n## Interpretation by {_escape(report.model or 'a model')}, not verified\n"
        yield _escape(report.interpretation)
    if report.figures:
        yield from _figures(report.figures)
    if report.limitations:
        yield "\n## Limitations\n"
        yield from (f"- {_escape(limitation)}" for limitation in report.limitations)
    yield "\n---\n"
    yield _origin(report)


def _finding(finding: Finding) -> str:
    cause = f" Likely cause ({finding.confidence} confidence): {finding.cause}" if finding.cause else ""
    head = f"**{_escape(finding.title)}** ({finding.severity})"
    return f"- {head}: {_escape(finding.detail + cause)} [{', '.join(finding.evidence)}]"


def _figures(figures: list[Figure]) -> Iterator[str]:
    yield "\n## Figures\n"
    yield "| id | metric | which | value | method | error | n |"
    yield "|---|---|---|---|---|---|---|"
    for item in figures:
        error = f"±{number(item.rel_error * 100)}%" if item.rel_error else "0"
        n = "" if item.n is None else number(item.n)
        cells = (item.id, f"`{item.metric}`", _READINGS[item.window], show(item), item.method, error, n)
        yield f"| {' | '.join(cells)} |"


def _origin(report: Report) -> str:
    author = f"selected by {_escape(report.model or 'a model')}" if report.source == "ai" else "selected by rules"
    reason = f" ({report.fallback_reason})" if report.fallback_reason else ""
    return f"Report {report.report_id}, {report.generated_at:%Y-%m-%d %H:%M:%S} UTC, {author}{reason}."


def _escape(text: str) -> str:
    """Escape Markdown's and HTML's special characters."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in text)
