"""The figures of a run, each a function from plain columns to a matplotlib Figure.

A table is anything with named columns: a mapping such as ``{"iteration": [1, 2], "loss": [9, 4]}``
or a pyarrow Table as a named query returns it. Missing numbers (None or NaN) leave a gap in a line;
an empty table gives a figure that says so. Nothing here touches pyplot or its global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

Column = NDArray[np.float64]


class ArrowLike(Protocol):
    """A pyarrow Table, as far as it is needed here."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in order."""

    def column(self, name: str) -> Any:
        """The column of that name, with a to_pylist method."""


Table = Mapping[str, Sequence[Any]] | ArrowLike

INK, MUTED, GRID = "#26323d", "#66727f", "#e7ebef"
BLUE, TEAL, AMBER, ROSE, VIOLET, GREY = (
    "#2f6690",
    "#4b9c8e",
    "#dba556",
    "#b8505c",
    "#8b7fb5",
    "#b9c2cb",
)
VERDICT_COLOURS = {
    "correct": "#6db0a2",
    "incorrect": "#e3bb7c",
    "no_answer": GREY,
    "timeout": VIOLET,
    "error": ROSE,
    "rejected": "#59636e",
}
STAGE_COLOURS = {
    "generate": BLUE,
    "verify": TEAL,
    "score": "#9cc3b2",
    "persist": GREY,
    "learn": AMBER,
    "evaluate": VIOLET,
}
OTHER_COLOURS = (ROSE, "#59636e", "#7ea6c4", "#c9a58b", "#a3b36b")
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g}%")
LEARNED = "rounds learned"
ITERATION = "iteration, counted from 0"
SIZE = (5.6, 3.6)  # inches; text of 10 to 11 points stays readable across a phone


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
    x, accuracy, reward = _numbers(rounds, "iteration", "accuracy", "reward_mean")
    points = np.stack(_numbers(evaluations, "learned", "value", "low", "high"))
    points = points[:, ~np.isnan(points[1])]
    graded = not (np.isnan(accuracy).all() and not np.isnan(reward).all())
    if graded:
        figure, (axes,) = _figure("accuracy")
        if x.size:
            _line(axes, x, accuracy, color=AMBER, linewidth=1.1, label="fresh batch")
    elif points.size:
        figure, (above, axes) = _figure("mean reward of the fresh batch", "accuracy")
        _line(above, x, reward, color=AMBER)
    else:
        figure, (above,) = _figure("mean reward of the fresh batch")
        axes = None
        _line(above, x, reward, color=AMBER)
    figure.axes[-1].set_xlabel(LEARNED, fontsize=10.5, color=MUTED)
    if axes is not None:
        _evaluation_points(axes, points, evaluated)
        _share_axis(axes, np.concatenate([accuracy, points[1], points[3]]))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return _finish(figure, empty=not (x.size or points.size))


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
        label=f"{name} and 95 % interval",
        zorder=4,
    )
    _annotate(axes, (at[0], value[0]), f"{value[0]:.0%}", offset=(9, -1), va="center")
    if at.size > 1:
        bottom = np.fmin(low[-1], value[-1])
        _annotate(axes, (at[-1], bottom), f"{value[-1]:.0%}", offset=(4, -5), ha="right", va="top")


def residual_plot(residuals: Table) -> Figure:
    """Bellman residual (mean and one standard deviation, in nats) with what it is made of above, loss below.

    The residual is what learning has moved, log-ratio and prompt term, minus reward / beta. Both parts are drawn where
    they are given: the first moves towards the second, while the residual alone mostly shows how many are right.

    Args:
        residuals: columns iteration, residual_mean, residual_std, moved_mean (the residual without the reward; None
            where the objective has none), loss.
    """
    figure, (above, below) = _figure("Bellman residual and its parts, nats", "loss", heights=(3, 2))
    x, mean, std, moved, loss = _numbers(residuals, "iteration", "residual_mean", "residual_std", "moved_mean", "loss")
    above.axhline(0, color=MUTED, linewidth=0.8)
    if not np.isnan(moved).all():
        _line(above, x, moved - mean, color=GREY, label="reward / beta", linestyle="--")
        _line(above, x, moved, color=TEAL, label="log-ratio + prompt term")
    above.fill_between(x, mean - std, mean + std, color=BLUE, alpha=0.18, linewidth=0)
    _line(above, x, mean, color=BLUE, label="residual ± 1 s.d.")
    _line(below, x, loss, color=AMBER)
    known = loss[np.isfinite(loss)]
    if known.size and known.min() > 0:
        _log_axis(below, known)
    return _finish(figure, empty=not x.size)


def _log_axis(axes: Axes, values: Column) -> None:
    """A log axis that is labelled at whole decades alone, and shows at least two of them."""
    axes.set_yscale("log")
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_ylim(10**low, 10 ** max(high, low + 1))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, x: Column, y: Column, **style: Any) -> None:
    """A line; numbers without a neighbour, which a line would not show, get a marker."""
    known = ~np.isnan(y)
    beside = np.zeros_like(known)
    beside[1:] |= known[:-1]
    beside[:-1] |= known[1:]
    alone = np.flatnonzero(known & ~beside).tolist()
    marks: dict[str, Any] = {"marker": "o", "markersize": 5, "markevery": alone} if alone else {}
    axes.plot(x, y, **{"linewidth": 1.8} | marks | style)


def staleness_reuse(replay: Table) -> Figure:
    """How old the learned-from trajectories are, and how often one has been used.

    Args:
        replay: columns iteration, staleness_mean (rounds since generation), uses_mean (updates per
            trajectory).
    """
    figure, (above, below) = _figure("mean age of drawn trajectories, rounds", "mean uses of a trajectory")
    x, staleness, uses = _numbers(replay, "iteration", "staleness_mean", "uses_mean")
    for axes, values, colour in ((above, staleness, VIOLET), (below, uses, TEAL)):
        axes.fill_between(x, 0, values, color=colour, alpha=0.15, linewidth=0)
        _line(axes, x, values, color=colour)
        axes.set_ylim(bottom=0)
    return _finish(figure, empty=not x.size)


def response_length(lengths: Table) -> Figure:
    """Mean length of a response in tokens above, share of truncated responses below.

    Args:
        lengths: columns iteration, length_mean (tokens), truncated_share (0 to 1).
    """
    figure, (above, below) = _figure("mean response length, tokens", "truncated responses", heights=(3, 2))
    x, length, truncated = _numbers(lengths, "iteration", "length_mean", "truncated_share")
    _line(above, x, length, color=BLUE)
    above.set_ylim(bottom=0)
    below.fill_between(x, 0, truncated, color=ROSE, alpha=0.2, linewidth=0)
    _line(below, x, truncated, color=ROSE)
    _share_axis(below, truncated)
    return _finish(figure, empty=not x.size)


def verdict_shares(verdicts: Table) -> Figure:
    """Stacked areas: what the verifier said about each round.

    Args:
        verdicts: columns iteration, status, share (0 to 1); a status without a row has share 0.
    """
    figure, (axes,) = _figure("share of responses")
    x, layers = _layers(verdicts, "status", "share", VERDICT_COLOURS)
    _stack(axes, x, layers, VERDICT_COLOURS, width=1.0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False)
    return _finish(figure, empty=not x.size)


def stage_timeline(stages: Table) -> Figure:
    """Stacked bars: seconds that each stage took in each iteration.

    Args:
        stages: columns iteration, stage, seconds; a stage without a row took no time.
    """
    figure, (axes,) = _figure("seconds")
    x, layers = _layers(stages, "stage", "seconds", STAGE_COLOURS)
    _stack(axes, x, layers, STAGE_COLOURS, width=0.8)
    axes.set_ylim(bottom=0)
    return _finish(figure, empty=not x.size)


def figure_png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        dpi: pixels per inch; 160 gives 896 pixels across.
    """
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_svg(figure: Figure) -> str:
    """The figure as an SVG document without dates or random ids; the same figure gives the same
    text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reval", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _figure(*names: str, heights: tuple[float, ...] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per name, above each other over the same iterations."""
    figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    figure.set_facecolor("white")
    grid = figure.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=heights)
    panels: list[Axes] = list(grid[:, 0])
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, loc="left", fontsize=10.5, color=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GREY)
        axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=10, length=0, which="both")
        axes.grid(axis="y", color=GRID, linewidth=0.9)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10], min_n_ticks=1))
    panels[-1].set_xlabel(ITERATION, fontsize=10.5, color=MUTED)
    return figure, panels


def _finish(figure: Figure, *, empty: bool) -> Figure:
    """One legend under all panels, or a word about missing data."""
    if empty:
        for axes in figure.axes:
            axes.text(
                0.5,
                0.5,
                "no data yet",
                transform=axes.transAxes,
                ha="center",
                va="center",
                color=MUTED,
            )
            axes.set_xticks([])
            axes.set_yticks([])
        return figure
    legends = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = [handle for found, _ in legends for handle in found]
    labels = [label for _, found in legends for label in found]
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=4 if len(handles) > 3 else len(handles),
            frameon=False,
            fontsize=10,
            labelcolor=INK,
            handlelength=1.3,
            columnspacing=1.4,
        )
    return figure


def _share_axis(axes: Axes, values: Column) -> None:
    """Percent from 0 to a little above the largest value."""
    top = float(np.nanmax(values, initial=0.0))
    axes.set_ylim(0, min(1.0, max(0.05, top * 1.12)) + 0.015)
    axes.yaxis.set_major_formatter(PERCENT)


def _annotate(axes: Axes, point: tuple[float, float], text: str, offset: tuple[float, float], **place: Any) -> None:
    """A bold number beside a point, offset in typographic points."""
    axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        fontsize=11,
        fontweight="bold",
        color=BLUE,
        zorder=6,
        **place,
    )


def _stack(
    axes: Axes,
    x: NDArray[np.int64],
    layers: dict[str, Column],
    colours: Mapping[str, str],
    width: float,
) -> None:
    """Columns of the given width around each iteration, one artist for each layer."""
    if not x.size:
        return
    spare = iter(OTHER_COLOURS * (1 + len(layers)))
    edges = np.stack([x - width / 2, x + width / 2], axis=1).ravel()  # left and right edge of each column
    base = np.zeros(x.size)
    for name, heights in layers.items():
        gaps = np.full(2 * x.size - 1, np.nan)
        gaps[::2] = base + heights
        axes.stairs(
            gaps,
            edges,
            baseline=np.where(np.isnan(gaps), np.nan, np.repeat(base, 2)[:-1]),
            fill=True,
            color=colours.get(name) or next(spare),
            label=name.replace("_", " "),
        )
        base = base + heights


def _layers(
    table: Table, key: str, value: str, order: Mapping[str, str]
) -> tuple[NDArray[np.int64], dict[str, Column]]:
    """A long table as one column per key over all iterations, known keys first, then the others by
    name."""
    iterations, keys, values = _columns(table, "iteration", key, value)
    x = np.unique(np.asarray(iterations, dtype=np.int64))
    names = [name for name in order if name in set(keys)] + sorted(set(keys) - set(order))
    layers = {name: np.zeros(x.size) for name in names}
    for iteration, name, amount in zip(iterations, keys, values, strict=True):
        layers[name][np.searchsorted(x, iteration)] += amount or 0.0
    return x, layers


def _numbers(table: Table, *names: str) -> list[Column]:
    """Columns as floats in the order of the first one (the iteration); None becomes NaN."""
    arrays = [np.array([np.nan if v is None else v for v in c], dtype=np.float64) for c in _columns(table, *names)]
    order = np.argsort(arrays[0], kind="stable")
    return [array[order] for array in arrays]


def _columns(table: Table, *names: str) -> list[list[Any]]:
    """The named columns as lists of one length.

    Raises:
        ValueError: a column is missing, or the lengths differ.
    """
    present = list(table) if isinstance(table, Mapping) else table.column_names
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(f"the table lacks column {missing[0]!r}; it has {sorted(present)}")
    if isinstance(table, Mapping):
        columns = [list(table[name]) for name in names]
    else:
        columns = [table.column(name).to_pylist() for name in names]
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of one table differ in length: {lengths}")
    return columns
