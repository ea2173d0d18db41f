"""Further figures of a run: benchmarks, calibration of the logits, lengths, when each stage ran, the machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from reval_core.reporting.canvas import (
    AMBER,
    BLUE,
    GRID,
    MUTED,
    OTHER_COLOURS,
    SIZE,
    STAGE_COLOURS,
    TEAL,
    VIOLET,
    Table,
    columns,
    finish,
    line,
    numbers,
    panels,
    share_axis,
)

METRIC_COLOURS = (BLUE, TEAL, AMBER, *OTHER_COLOURS)
UNITS = ((3 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""Of a timeline: seconds from which it is told so, seconds of the unit, its name."""
PLACES = 1000
"""Across a timeline; a gap of less than one cannot be seen."""


def benchmark_curves(metrics: Mapping[str, Table]) -> Figure:
    """The metrics of one benchmark over rounds learned, each with the band of its 95 % interval.

    Args:
        metrics: name, such as avg@16, to columns learned (rounds), value, low, high (0 to 1; None: not estimated).
    """
    figure, (axes,) = panels("share of problems or samples that are right")
    axes.set_xlabel("rounds learned", fontsize=10.5, color=MUTED)
    known = []
    for colour, (name, table) in zip(METRIC_COLOURS, metrics.items(), strict=False):
        at, value, low, high = numbers(table, "learned", "value", "low", "high")
        if np.isnan(value).all():
            continue
        axes.fill_between(at, low, high, color=colour, alpha=0.14, linewidth=0)
        line(axes, at, value, color=colour, label=name, marker="o", markersize=4)
        known += [value, high]
    if known:
        share_axis(axes, np.concatenate(known))
    return finish(figure, empty=not known)


def calibration(table: Table) -> Figure:
    """The reward that the logits stand for, of rewarded responses and of the others, with the rewards they got dashed.

    At the optimum a policy's logits say exactly the reward: beta (log pi - log pi_ref + V - V_ref) = r.

    Args:
        table: columns iteration, and right_ and wrong_ each with reward, mean, low, high; units of the reward.
    """
    figure, (axes,) = panels("reward that the logits stand for")
    rewards = []
    for side, label, colour in (("right", "rewarded", TEAL), ("wrong", "not rewarded", AMBER)):
        names = [f"{side}_{name}" for name in ("reward", "mean", "low", "high")]
        x, reward, mean, low, high = numbers(table, "iteration", *names)
        if np.isnan(mean).all():
            continue
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        line(axes, x, mean, color=colour, label=label)
        rewards.append((x, reward))
    for index, (x, reward) in enumerate(rewards):
        label = "_second" if index else "the reward they got"  # matplotlib leaves such a name out of the legend
        line(axes, x, reward, color=MUTED, linestyle="--", linewidth=1.1, label=label)
    return finish(figure, empty=not rewards)


def response_length(table: Table) -> Figure:
    """Tokens of a response with the middle four fifths, right and other responses apart; share of cut ones below.

    Args:
        table: columns iteration, length_mean, length_low, length_high, right_mean, wrong_mean (all in tokens),
            truncated_share (0 to 1).
    """
    figure, (above, below) = panels("response length, tokens", "truncated responses", heights=(3, 2))
    names = ("length_mean", "length_low", "length_high", "right_mean", "wrong_mean", "truncated_share")
    x, mean, low, high, right, wrong, truncated = numbers(table, "iteration", *names)
    above.fill_between(x, low, high, color=BLUE, alpha=0.14, linewidth=0)
    line(above, x, mean, color=BLUE, label="all, 10 to 90 %")
    for values, colour, label in ((right, TEAL, "right"), (wrong, AMBER, "wrong")):
        if not np.isnan(values).all():
            line(above, x, values, color=colour, linewidth=1.1, label=label)
    above.set_ylim(bottom=0)
    below.fill_between(x, 0, truncated, color=VIOLET, alpha=0.2, linewidth=0)
    line(below, x, truncated, color=VIOLET)
    share_axis(below, truncated)
    return finish(figure, empty=not x.size)


def timeline(table: Table) -> Figure:
    """When each stage ran: a row for each kind of stage, in it a bar for each time that it was executed.

    Neighbours that touch each other are drawn as one bar.

    Args:
        table: columns stage, start and seconds (both in seconds, start since the first began).
    """
    stages, starts, seconds = columns(table, "stage", "start", "seconds")
    known = [name for name in STAGE_COLOURS if name in stages]
    rows = known + sorted(set(stages) - set(known))
    figure, (axes,) = panels("each bar is one execution", size=(2 * SIZE[0], 1.2 + 0.3 * max(4, len(rows))))
    end = max((start + length for start, length in zip(starts, seconds, strict=True)), default=0.0)
    unit, name = next((unit, name) for least, unit, name in UNITS if end >= least)
    spare = dict(zip((row for row in rows if row not in STAGE_COLOURS), OTHER_COLOURS * 3, strict=False))
    for place, row in enumerate(rows):
        ran = [(s / unit, d / unit) for stage, s, d in zip(stages, starts, seconds, strict=True) if stage == row]
        bars = _joined(ran, end / unit / PLACES)
        colour = STAGE_COLOURS.get(row) or spare[row]
        # a line round a bar keeps one of a moment visible
        axes.broken_barh(bars, (place - 0.36, 0.72), color=colour, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.replace("_", " ") for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{name} since the first stage began", fontsize=10.5, color=MUTED, loc="left")
    axes.grid(visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    return finish(figure, empty=not stages)


def _joined(bars: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Bars (start, length) in order, those that are closer than the gap drawn as one: a picture has no room for it."""
    found: list[tuple[float, float]] = []
    for start, length in sorted(bars):
        if found and start - sum(found[-1]) < gap:
            before = found.pop()
            start, length = before[0], max(sum(before), start + length) - before[0]
        found.append((start, length))
    return found


def resources(table: Mapping[str, Table]) -> Figure:
    """Use of the machine over the run, a panel for each measure.

    Args:
        table: heading of a panel, such as ``memory, GB``, to columns minutes and value.
    """
    figure, found = panels(*(table or ["use of the machine"]), size=(SIZE[0], max(SIZE[1], 1.5 * len(table))))
    for axes, colour, series in zip(found, (BLUE, TEAL, AMBER, VIOLET), table.values(), strict=False):
        at, value = numbers(series, "minutes", "value")
        axes.fill_between(at, 0, value, color=colour, alpha=0.15, linewidth=0)
        line(axes, at, value, color=colour, linewidth=1.1)
        axes.set_ylim(bottom=0)
    found[-1].set_xlabel("minutes", fontsize=10.5, color=MUTED)
    return finish(figure, empty=not table)
