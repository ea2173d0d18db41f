"""The figures of an experiment: mean curves of its arms with their intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from reval_core.reporting.canvas import (
    AMBER,
    BLUE,
    MUTED,
    OTHER_COLOURS,
    ROSE,
    TEAL,
    VIOLET,
    Table,
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
        line(axes, at, value, color=colour, label=name, linestyle=STYLES[index // len(COLOURS) % len(STYLES)])
    axes.set_xlabel(xlabel, fontsize=10.5, color=MUTED)
    return finish(figure, empty=not some)
