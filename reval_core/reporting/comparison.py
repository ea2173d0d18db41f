"""The figures of comparisons: mean curves of arms with their intervals, differences, and problem by problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reval_core.reporting.canvas import (
    AMBER,
    BLUE,
    GREY,
    GRID,
    MUTED,
    OTHER_COLOURS,
    PERCENT,
    ROSE,
    SIZE,
    TEAL,
    VIOLET,
    Table,
    as_label,
    finish,
    line,
    numbers,
    panels,
)

COLOURS = (BLUE, AMBER, TEAL, ROSE, VIOLET, *OTHER_COLOURS[1:])
STYLES = ("-", "--", ":")


def curves(arms: Mapping[str, Table], x: str, *, xlabel: str, ylabel: str, thresholds: Sequence[float] = ()) -> Figure:
    """One line per arm with a band for the interval of its mean.

    Args:
        arms: name to columns `x`, value, low, high (None where there is no interval); one without values is left out.
        x: the column that is spent: rounds, tokens or seconds.
        xlabel, ylabel: what stands at the axes.
        thresholds: thin lines across.
    """
    figure, (axes,) = panels(ylabel)
    figure.set_size_inches(7.2, 4.4 + 0.16 * max(0, len(arms) - 4))
    for level in thresholds:
        axes.axhline(level, color=MUTED, linewidth=0.7, linestyle=":")
    some = False
    for index, (name, table) in enumerate(arms.items()):
        at, value, low, high = numbers(table, x, "value", "low", "high")
        if not at.size or np.isnan(value).all():
            continue  # its colour stays its own in every figure
        some = True
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(at, low, high, color=colour, alpha=0.14, linewidth=0)
        line(axes, at, value, color=colour, label=as_label(name), linestyle=STYLES[index // len(COLOURS) % len(STYLES)])
    axes.set_xlabel(xlabel, fontsize=10.5, color=MUTED)
    return finish(figure, empty=not some)


def differences(rows: Sequence[tuple[str, float, float, float]], *, xlabel: str) -> Figure:
    """A row for each difference with its interval; an interval without 0 in full colour.

    Args:
        rows: (name, difference, lower end, upper end).
        xlabel: what stands below.
    """
    figure, (axes,) = panels("", size=(SIZE[0], 1.1 + 0.32 * max(3, len(rows))))
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for place, (_, value, low, high) in enumerate(rows):
        colour = MUTED if low <= 0 <= high else TEAL if value > 0 else ROSE
        axes.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [as_label(row[0]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.set_xlabel(xlabel, fontsize=10.5, color=MUTED)
    return finish(figure, empty=not rows)


def problem_by_problem(first: Sequence[float], second: Sequence[float], *, names: tuple[str, str]) -> Figure:
    """How often each problem was solved by two policies; the larger a point, the more problems stand there.

    Args:
        first, second: share of right samples, one a problem, in the same order.
        names: of the two policies.
    """
    figure, (axes,) = panels(f"{names[1]}, share right", size=(SIZE[0], SIZE[0] * 0.86))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    points = Counter(zip(first, second, strict=True))
    most = max(points.values(), default=1)
    for (x, y), count in points.items():
        colour = MUTED if x == y else TEAL if y > x else ROSE
        axes.scatter([x], [y], s=24 + 300 * (count / most) ** 0.5, color=colour, alpha=0.55, linewidth=0)
    axes.set_xlim(-0.07, 1.07)
    axes.set_ylim(-0.07, 1.07)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
        axis.set_major_formatter(PERCENT)
    axes.set_xlabel(f"{names[0]}, share right", fontsize=10.5, color=MUTED)
    return finish(figure, empty=not points)
