"""The lines of a plot differ from the background and each other, also with colour vision deficiencies."""

import re
from importlib.resources import files
from itertools import combinations
from typing import Final

import pytest

Rgb = tuple[float, float, float]

CONTRAST_MIN: Final = 3.0  # WCAG 2.2, 1.4.11: graphics
DELTA_E_MIN: Final = 14.0  # CIE 1976; 2.3 is just noticeable
# Matrices that simulate colour vision deficiencies in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHT: Final = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
TO_XYZ: Final = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))  # sRGB, D65
WHITE: Final = (0.9505, 1.0, 1.089)


def colours(theme: int) -> dict[str, Rgb]:
    """Return the colours of each theme as linear RGB, by custom property."""
    css = (files("metrics.dashboard") / "static" / "base.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\);", css)
    return {name: linear(values[theme]) for name, *values in pairs}


def plots() -> list[list[str]]:
    """Return the groups of series colours that share a plot."""
    text = (files("metrics.dashboard") / "static" / "plots.js").read_text()
    plots = re.findall(r"series: \[(line.*)\]", text)
    return [[f"series-{number}" for number in re.findall(r'line\("\w+", (\d)', plot)] for plot in plots]


def linear(value: str) -> Rgb:
    def channel(place: int) -> float:
        share = int(value[place : place + 2], 16) / 255
        return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

    return channel(0), channel(2), channel(4)


def times(matrix: tuple[tuple[float, ...], ...], colour: Rgb) -> Rgb:
    first, second, third = (sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)
    return first, second, third


def contrast(one: Rgb, other: Rgb) -> float:
    light, dark = sorted((times(TO_XYZ, one)[1], times(TO_XYZ, other)[1]), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(colour: Rgb) -> Rgb:
    x, y, z = (
        (value / white) ** (1 / 3) if value / white > 0.008856 else 7.787 * value / white + 16 / 116
        for value, white in zip(times(TO_XYZ, colour), WHITE, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def delta_e(one: Rgb, other: Rgb) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5)


def seen(colour: Rgb, sight: str) -> Rgb:
    first, second, third = (min(1.0, max(0.0, share)) for share in times(SIGHT[sight], colour))
    return first, second, third


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_each_line__stands_out_from_the_ground(theme: int) -> None:
    found = colours(theme)
    used = {name for plot in plots() for name in plot}
    assert len(used) >= 4
    too_faint = {name: contrast(found[name], found["surface"]) for name in used}
    assert {name: ratio for name, ratio in too_faint.items() if ratio < CONTRAST_MIN} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_lines_of_one_plot__are_told_apart(theme: int, sight: str) -> None:
    found = colours(theme)
    pairs = {pair for plot in plots() for pair in combinations(plot, 2)}
    assert len(pairs) >= 6
    distances = {pair: delta_e(seen(found[pair[0]], sight), seen(found[pair[1]], sight)) for pair in pairs}
    assert {pair: distance for pair, distance in distances.items() if distance < DELTA_E_MIN} == {}
