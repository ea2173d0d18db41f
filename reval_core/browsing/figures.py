"""Step rewards as colours of a strip of tokens, and their running sum as the points of a figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SHADES = 6
"""Shades on either side of zero; the style sheet has a class for each: n6 to n1, z, p1 to p6."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 220, 62, 34, 12
"""Of the figure, in its own units."""
MOST_POINTS = 1200
"""Points of a line: more than its pixels are not seen."""


def shades(values: Floats) -> list[str]:
    """[T] class of each token's colour, by its value as a share of the largest; the root spreads the small ones."""
    most = float(np.abs(values).max(initial=0.0))
    if most == 0.0:
        return ["z"] * len(values)
    steps = np.ceil(np.sqrt(np.abs(values) / most) * SHADES - 0.5).astype(int)
    return [
        "z" if step == 0 else f"{'p' if value > 0 else 'n'}{step}" for step, value in zip(steps, values, strict=True)
    ]


@dataclass(frozen=True)
class Line:
    """A line with its axes, in the figure's own units."""

    points: str
    """For a polyline: ``x,y x,y``."""
    zero: float
    """Height of the value 0."""
    levels: tuple[tuple[float, str], ...]
    """(height, label) of some values."""
    places: tuple[tuple[float, str], ...]
    """(place, label) of some tokens."""


def running_sum(values: Floats) -> Line:
    """The sum of the values up to each token, from 0 before the first."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low, high = min(0.0, float(sums.min())), max(0.0, float(sums.max()))
    if low == high:
        low, high = -1.0, 1.0
    last = max(1, len(values))

    def height(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 2)

    def place(token: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * token / last, 2)

    chosen = np.unique(np.linspace(0, len(sums) - 1, min(len(sums), MOST_POINTS)).astype(int))
    points = " ".join(f"{place(index)},{height(sums[index])}" for index in chosen.tolist())
    levels = {low: f"{low:.3g}", 0.0: "0", high: f"{high:.3g}"}
    tokens = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    return Line(
        points,
        height(0.0),
        tuple((height(value), label) for value, label in _apart(levels, 0.1 * (high - low)).items()),
        tuple((place(token), str(token)) for token in tokens),
    )


def _apart(levels: dict[float, str], least: float) -> dict[float, str]:
    """Without an end that would be written over the zero."""
    return {value: label for value, label in levels.items() if value == 0.0 or abs(value) >= least}
