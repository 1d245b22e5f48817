"""A report as Markdown, for people and chat channels; says nothing that the JSON does not."""

from collections.abc import Iterator

from analyst.report.models import Report
from analyst.report.rendering import number, show

_READINGS = {
    "current": "this window",
    "previous": "window before",
    "delta_abs": "change",
    "delta_pct": "change, %",
    "threshold": "limit",
}


def to_markdown(report: Report) -> str:
    """The whole report; every finding names the figures it rests on."""
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
        for finding in report.findings:
            head = f"**{_escape(finding.title)}** ({finding.severity})"
            yield f"- {head}: {_escape(finding.detail)} [{', '.join(finding.evidence)}]"
    if report.recommendations:
        yield "\n## Recommendations\n"
        for item in report.recommendations:
            head = f"**{_escape(item.action)}** ({item.priority})"
            yield f"- {head} {_escape(item.rationale)} [{', '.join(item.evidence)}]"
    if report.figures:
        yield from _figures(report)
    if report.limitations:
        yield "\n## Limitations\n"
        yield from (f"- {_escape(limitation)}" for limitation in report.limitations)
    yield "\n---\n"
    yield _origin(report)


def _figures(report: Report) -> Iterator[str]:
    yield "\n## Figures\n"
    yield "| id | metric | which | value | method | error | n |"
    yield "|---|---|---|---|---|---|---|"
    for item in report.figures:
        error = f"±{number(item.rel_error * 100)}%" if item.rel_error else "0"
        cells = (
            item.id,
            f"`{item.metric}`",
            _READINGS[item.window],
            show(item),
            item.method,
            error,
            "" if item.n is None else number(item.n),
        )
        yield f"| {' | '.join(cells)} |"


def _origin(report: Report) -> str:
    writer = f"written by {_escape(report.model or 'a model')}" if report.source == "ai" else "written by rules"
    reason = f" ({report.fallback_reason})" if report.fallback_reason else ""
    return f"Report {report.report_id}, {report.generated_at:%Y-%m-%d %H:%M:%S} UTC, {writer}{reason}."


def _escape(text: str) -> str:
    """Keep prose from becoming markup."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in text)
