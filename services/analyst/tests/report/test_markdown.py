from datetime import UTC, datetime

import pytest

from analyst.facts.checks import run_checks, status_of
from analyst.facts.facts import read_facts
from analyst.report.markdown import to_markdown
from analyst.report.models import Finding, Grounding, Report, Windows
from analyst.report.rendering import render
from analyst.report.templates import draft_by_rules
from common.contracts.aggregates import Aggregate


@pytest.fixture
def report(troubled: Aggregate) -> Report:
    facts = read_facts(troubled, "1h")
    observations = run_checks(facts)
    status = status_of(facts, observations)
    rendered = render(draft_by_rules(facts, observations, status), facts)
    return Report(
        report_id="the-id",
        generated_at=datetime(2026, 1, 1, 13, tzinfo=UTC),
        status=status,
        summary=rendered.summary,
        figures=rendered.figures,
        findings=rendered.findings,
        recommendations=rendered.recommendations,
        source="rules",
        fallback_reason="no_key",
        cache="miss",
        model=None,
        prompt_version="1",
        metrics_digest="0" * 64,
        windows=Windows(name="1h", current=facts.current, previous=facts.previous),
        grounding=Grounding(references=1, refused_drafts=0, refusals=[]),
        limitations=["Read with care."],
    )


def test_markdown__shows_everything_with_its_evidence(report: Report) -> None:
    text = to_markdown(report)
    assert text.startswith("# Performance: critical\n\n2026-01-01 12:00:00 to 2026-01-01 13:00:00 UTC\n")
    assert (
        "- **The p95 latency rose** (warning): The p95 latency rose by 47.14%, from 280 ms to 412 ms. [e6, e3, e7]"
        in text
    )
    assert "| e3 | `latency_ms.p95` | this window | 412 ms | exact | 0 | 36,000 |" in text
    assert "- Read with care." in text
    assert text.endswith("Report the-id, 2026-01-01 13:00:00 UTC, written by rules (no_key).\n")


def test_prose__cannot_become_markup(report: Report) -> None:
    finding = Finding(title="**bold** | <b>", severity="info", category="data", detail="[a](http://b)", evidence=["e1"])
    text = to_markdown(report.model_copy(update={"findings": [finding]}))
    assert r"\*\*bold\*\* \| \<b\>" in text
    assert r"\[a\](http://b)" in text
