import pytest

from analyst.report.format import number, show
from analyst.report.models import Figure, Reading, Unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (36_000, "36,000"),
        (412.34, "412"),
        (1234.56, "1,235"),
        (1_234_567.8, "1,234,568"),
        (9.9999, "10"),
        (0.08333, "0.0833"),
        (0.000012346, "0.0000123"),
        (-47.142857, "-47.1"),
        (1e308 * 100, "∞"),
        (-1e308 * 100, "-∞"),
    ],
)
def test_number__has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "window", "text"),
    [
        (0.0123, "share", "current", "1.23%"),
        (0.0123, "share", "delta_abs", "+1.23 percentage points"),
        (-12.5, "percent", "delta_pct", "-12.5%"),
        (412.0, "ms", "current", "412 ms"),
        (10.0, "per_s", "previous", "10/s"),
        (22.5, "ratio", "current", "22.5×"),
        (0.9, "score", "threshold", "0.9"),
    ],
)
def test_figure__shows_its_unit_and_the_sign_of_a_change(value: float, unit: Unit, window: Reading, text: str) -> None:
    figure = Figure(id="f1", metric="m", window=window, value=value, unit=unit, method="exact", rel_error=0, n=1)
    assert show(figure) == text
