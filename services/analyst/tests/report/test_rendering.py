import pytest

from analyst.facts.facts import read_facts
from analyst.report.models import Draft, Evidence, Figure, Reading, Unit
from analyst.report.rendering import number, render, show
from common.contracts.aggregates import Aggregate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (36_000, "36,000"),
        (412.0, "412"),
        (412.34, "412.3"),
        (1234.56, "1,235"),
        (1_234_567.8, "1,234,568"),
        (9.9999, "10"),
        (0.08333, "0.08333"),
        (0.000012346, "0.00001235"),
        (-47.142857, "-47.14"),
        (1e308 * 100, "∞"),
        (-1e308 * 100, "-∞"),
    ],
)
def test_number__has_four_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "window", "signed", "text"),
    [
        (0.0123, "share", "current", True, "1.23%"),
        (0.0123, "share", "delta_abs", True, "+1.23 percentage points"),
        (-0.0123, "share", "delta_abs", False, "1.23 percentage points"),
        (-12.5, "percent", "delta_pct", True, "-12.5%"),
        (-12.5, "percent", "delta_pct", False, "12.5%"),
        (412.0, "ms", "current", True, "412 ms"),
        (10.0, "per_s", "previous", True, "10/s"),
        (22.5, "ratio", "current", True, "22.5×"),
        (0.9, "score", "threshold", True, "0.9"),
    ],
)
def test_figure__shows_its_unit_and_a_change_its_sign(
    value: float, unit: Unit, window: Reading, signed: bool, text: str
) -> None:
    figure = Figure(id="e1", metric="m", window=window, value=value, unit=unit, method="exact", rel_error=0, n=1)
    assert show(figure, signed=signed) == text


def test_sign__is_left_out_where_words_tell_the_direction(troubled: Aggregate) -> None:
    evidence = [Evidence(id="e1", metric="throughput_per_s", window="delta_pct")]
    draft = Draft(
        summary="Throughput fell by {e1}. Change in throughput: {e1}.",
        evidence=evidence,
        findings=[],
        recommendations=[],
    )
    summary = render(draft, read_facts(troubled, "1h")).summary
    assert summary == "Throughput fell by 28.57%. Change in throughput: -28.57%."
