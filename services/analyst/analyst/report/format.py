"""Figures as text."""

import math
from typing import Final

from analyst.report.models import Figure, Unit

_SUFFIXES: Final[dict[Unit, str]] = {"percent": "%", "ms": " ms", "per_s": "/s", "ratio": "×"}
_DIGITS: Final = 3


def show(figure: Figure) -> str:
    """Return the figure with its unit; a change carries its sign."""
    is_change = figure.window in ("delta_abs", "delta_pct")
    sign = "+" if is_change and figure.value > 0 else ""
    if figure.unit == "share":
        unit = " percentage points" if is_change else "%"
        return f"{sign}{number(figure.value * 100)}{unit}"
    value = float(f"{figure.value:.0f}") if figure.unit == "count" else figure.value
    return f"{sign}{number(value)}{_SUFFIXES.get(figure.unit, '')}"


def number(value: float) -> str:
    """Return integers in full and other numbers with three significant digits, without an exponent."""
    if not math.isfinite(value):  # a share near the largest float, as a percentage
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = min(9, max(0, _DIGITS - 1 - magnitude))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
