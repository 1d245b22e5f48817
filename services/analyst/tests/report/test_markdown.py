from analyst.report.examples import REPORT
from analyst.report.markdown import to_markdown
from analyst.report.models import Finding


def test_markdown__shows_findings_with_cause_and_evidence_and_marks_the_interpretation() -> None:
    text = to_markdown(REPORT)
    assert text.startswith("# Performance: degraded\n\n2026-11-24 11:00:00 to 2026-11-24 12:00:00 UTC\n")
    assert "(+551%). Likely cause (medium confidence): Texts are longer" in text
    assert "[f1, f2, f4]" in text
    assert "1. **Add inference replicas.** (medium priority) `kubectl scale" in text
    assert "## Interpretation by gemini-2.5-flash-lite, not verified" in text
    assert "| f1 | `latency_ms.p95` | this window | 612 ms | sketch | ±1.08% | 400 |" in text
    assert text.endswith("2026-11-24 12:00:00 UTC, selected by gemini-2.5-flash-lite.\n")


def test_text__cannot_become_markup() -> None:
    finding = REPORT.findings[0].model_copy(update={"title": "**bold** | <b>", "detail": "[a](http://b)"})
    assert isinstance(finding, Finding)
    text = to_markdown(REPORT.model_copy(update={"findings": [finding]}))
    assert r"\*\*bold\*\* \| \<b\>" in text
    assert r"\[a\](http://b)" in text
