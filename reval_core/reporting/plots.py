"""The figures of a run, each a function from plain columns (see canvas.py) to a matplotlib Figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reval_core.reporting.canvas import (
    AMBER,
    BLUE,
    COLUMNS,
    GREY,
    INK,
    MUTED,
    PERCENT,
    STAGE_COLOURS,
    TEAL,
    VERDICT_COLOURS,
    VIOLET,
    Column,
    Table,
    annotate,
    as_label,
    finish,
    layered,
    line,
    log_axis,
    merged,
    numbers,
    of_rounds,
    panels,
    running_mean,
    share_axis,
    stack,
)

LEARNED = "rounds learned"
LOW = 0.12
"""A share under which a number has no room below its point."""
FAR = 5.0
"""Times the usual column from which on one is cut off, so that the others can be seen."""


def learning_curve(rounds: Table, evaluations: Table, *, evaluated: str = "evaluation", title: str = "") -> Figure:
    """The fresh batches as a thin line and the evaluations as points with intervals, over rounds learned.

    A batch stands at the rounds that the policy which sampled it had learned, as an evaluation does. Where the fresh
    batches have no right and wrong, the reward being a number of its own, their mean reward has a panel of its own.

    Args:
        rounds: columns iteration (rounds learned before it was sampled), accuracy (share of the fresh batch that is
            right, 0 to 1, or None) and reward_mean.
        evaluations: columns learned (rounds), value, low, high (avg@k and its 95 % interval, 0 to 1; None where it is
            not estimated).
        evaluated: benchmark and metric of the evaluations, for the legend.
        title: heading inside the figure, for a picture that stands alone.
    """
    x, accuracy, reward = numbers(rounds, "iteration", "accuracy", "reward_mean")
    points = np.stack(numbers(evaluations, "learned", "value", "low", "high"))
    points = points[:, ~np.isnan(points[1])]
    graded = not (np.isnan(accuracy).all() and not np.isnan(reward).all())
    if graded:
        figure, (axes,) = panels("accuracy")
        if x.size:
            _fresh(axes, x, accuracy)
    elif points.size:
        figure, (above, axes) = panels("mean reward of the fresh batch", "accuracy")
        _fresh(above, x, reward)
    else:
        figure, (above,) = panels("mean reward of the fresh batch")
        axes = None
        _fresh(above, x, reward)
    figure.axes[-1].set_xlabel(LEARNED, fontsize=10.5, color=MUTED)
    if axes is not None:
        _evaluation_points(axes, points, evaluated)
        share_axis(axes, np.concatenate([accuracy, points[1], points[3]]))
    if title:
        figure.suptitle(as_label(title), x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return finish(figure, empty=not (x.size or points.size))


def _fresh(axes: Axes, x: Column, values: Column) -> None:
    """What each round's batch got; of many rounds a running mean, with the rounds themselves pale behind it."""
    rounds = 1 if x.size <= COLUMNS else x.size // (COLUMNS // 2) | 1  # odd: as many before a round as behind it
    if rounds > 1:
        line(axes, x, values, color=AMBER, linewidth=0.6, alpha=0.35)
        values = running_mean(values, rounds)
    line(axes, x, values, color=AMBER, linewidth=1.1, label=of_rounds("fresh batch", rounds))


def _evaluation_points(axes: Axes, points: Column, name: str) -> None:
    """[4, N] of rounds learned, value, low, high as points with intervals; the first and the last with their value."""
    if not points.size:
        return
    at, value, low, high = points
    axes.plot(at, value, color=BLUE, linewidth=1.4, alpha=0.4, zorder=3)
    axes.errorbar(
        at,
        value,
        yerr=np.nan_to_num(np.maximum([value - low, high - value], 0)),
        fmt="o",
        color=BLUE,
        markersize=5.5,
        markeredgecolor="white",
        ecolor=(BLUE, 0.3),
        elinewidth=6,
        label=f"{as_label(name)} and 95 % interval",
        zorder=4,
    )
    annotate(axes, (at[0], value[0]), f"{value[0]:.0%}", offset=(9, -1), va="center")
    if at.size > 1:
        bottom, top = np.fmin(low[-1], value[-1]), np.fmax(high[-1], value[-1])
        if bottom > LOW:
            annotate(axes, (at[-1], bottom), f"{value[-1]:.0%}", offset=(4, -5), ha="right", va="top")
        else:  # below it stand the numbers of the axis
            annotate(axes, (at[-1], top), f"{value[-1]:.0%}", offset=(4, 5), ha="right", va="bottom")


def residual_plot(residuals: Table) -> Figure:
    """Bellman residual (mean and one standard deviation, in nats) with what it is made of above, loss below.

    The residual is what learning has moved, log-ratio and prompt term, minus reward / beta. Both parts are drawn where
    they are given: the first moves towards the second, while the residual alone mostly shows how many are right.

    Args:
        residuals: columns iteration, residual_mean, residual_std, moved_mean (the residual without the reward; None
            where the objective has none), loss.
    """
    figure, (above, below) = panels("Bellman residual and its parts, nats", "loss", heights=(3, 2))
    x, mean, std, moved, loss = numbers(residuals, "iteration", "residual_mean", "residual_std", "moved_mean", "loss")
    above.axhline(0, color=MUTED, linewidth=0.8)
    if not np.isnan(moved).all():
        line(above, x, moved - mean, color=GREY, label="reward / beta", linestyle="--")
        line(above, x, moved, color=TEAL, label="log-ratio + prompt term")
    above.fill_between(x, mean - std, mean + std, color=BLUE, alpha=0.18, linewidth=0)
    line(above, x, mean, color=BLUE, label="residual ± 1 s.d.")
    line(below, x, loss, color=AMBER)
    known = loss[np.isfinite(loss)]
    if known.size and known.min() > 0:
        log_axis(below, known)
    return finish(figure, empty=not x.size)


def staleness_reuse(replay: Table) -> Figure:
    """How old the learned-from trajectories are, and how often one has been used.

    Args:
        replay: columns iteration, staleness_mean (rounds since generation), uses_mean (updates per
            trajectory).
    """
    figure, (above, below) = panels("mean age of drawn trajectories, rounds", "mean uses of a trajectory")
    x, staleness, uses = numbers(replay, "iteration", "staleness_mean", "uses_mean")
    for axes, values, colour in ((above, staleness, VIOLET), (below, uses, TEAL)):
        axes.fill_between(x, 0, values, color=colour, alpha=0.15, linewidth=0)
        line(axes, x, values, color=colour)
        axes.set_ylim(bottom=0)
    return finish(figure, empty=not x.size)


def verdict_shares(verdicts: Table) -> Figure:
    """Stacked areas: what the verifier said about each round.

    Args:
        verdicts: columns iteration, status, share (0 to 1); a status without a row has share 0.
    """
    x, layers, rounds = merged(*layered(verdicts, "status", "share", VERDICT_COLOURS))
    figure, (axes,) = panels(of_rounds("share of responses", rounds))
    there = {name: shares for name, shares in layers.items() if shares.any()}
    stack(axes, x, there, VERDICT_COLOURS, width=rounds)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False)
    return finish(figure, empty=not x.size)


def stage_timeline(stages: Table) -> Figure:
    """Stacked bars: seconds that each stage took in each iteration.

    A column that is many times as high as the others, as of a machine that slept, is cut off, and its height said.

    Args:
        stages: columns iteration, stage, seconds; a stage without a row took no time.
    """
    x, layers, rounds = merged(*layered(stages, "stage", "seconds", STAGE_COLOURS))
    heights = sum(layers.values(), np.zeros(x.size))
    usual, highest = (float(np.quantile(heights, share)) if x.size else 0.0 for share in (0.95, 1.0))
    cut = highest > FAR * usual > 0
    name = of_rounds("seconds", rounds) + (f"; the highest column is {highest:,.0f} s" if cut else "")
    figure, (axes,) = panels(name)
    stack(axes, x, layers, STAGE_COLOURS, width=0.8 * rounds)
    axes.set_ylim(0, 1.5 * usual if cut else None)
    return finish(figure, empty=not x.size)
