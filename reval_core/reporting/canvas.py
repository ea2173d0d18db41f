"""What every figure is drawn on: colours for light and dark pages, panels, lines, layers, and the files that come out.

A table is anything with named columns: a mapping such as ``{"iteration": [1, 2], "loss": [9, 4]}`` or a pyarrow Table
as a named query returns it. Missing numbers (None or NaN) leave a gap in a line; an empty table gives a figure that
says so. Nothing here touches pyplot or its global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from reval_core.visible import visible

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
DARK = {
    "#ffffff": "#1c2227",
    INK: "#e4e9ed",
    MUTED: "#9aa6b1",
    GRID: "#2d353c",
    GREY: "#5f6b76",
    BLUE: "#7db3de",
    TEAL: "#62b8a8",
    AMBER: "#e0b066",
    ROSE: "#e0808b",
    VIOLET: "#aa9edb",
    "#6db0a2": "#4f9486",
    "#e3bb7c": "#b98f4d",
    "#59636e": "#8d98a3",
    "#9cc3b2": "#78a593",
    "#7ea6c4": "#6d97b6",
    "#c9a58b": "#b08a6e",
    "#a3b36b": "#94a55a",
}
"""Every colour of a figure, white for the page among them, to the one that stands in its place on a dark page."""
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g}%")
ITERATION = "iteration, counted from 0"
SIZE = (5.2, 3.4)
"""Inches; text of 10 to 11 points stays readable across a phone."""
COLUMNS = 130
"""Columns side by side that the eye can still tell apart; with more rounds several share one."""


def panels(
    *names: str, heights: tuple[float, ...] | None = None, size: tuple[float, float] = SIZE
) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per name, above each other over the same iterations."""
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    figure.set_facecolor("white")
    grid = figure.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=heights)
    found: list[Axes] = list(grid[:, 0])
    for axes, name in zip(found, names, strict=True):
        plain(axes, name)
    found[-1].set_xlabel(ITERATION, fontsize=10.5, color=MUTED)
    return figure, found


def plain(axes: Axes, name: str) -> None:
    """A panel with its name above, a light grid and nothing around it."""
    axes.set_title(name, loc="left", fontsize=10.5, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=10, length=0, which="both")
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, steps=[1, 2, 5, 10], min_n_ticks=1))


def _columns(labels: Sequence[str]) -> int:
    """Columns of a legend that is no wider than the figure, where a row has room for some 80 letters."""
    fitting = max(1, 80 // (max(map(len, labels)) + 6))  # the line and the gap are as wide as 6
    return min(fitting, len(labels) if len(labels) < 5 else 4)


def finish(figure: Figure, *, empty: bool) -> Figure:
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
            ncols=_columns(labels),
            frameon=False,
            fontsize=10,
            labelcolor=INK,
            handlelength=1.3,
            columnspacing=1.4,
        )
    return figure


def as_label(text: str) -> str:
    """A name of the user's own as matplotlib draws it letter by letter: without control characters or formulas."""
    return visible(text).replace("$", r"\$")


def share_axis(axes: Axes, values: Column) -> None:
    """Percent from 0 to a little above the largest value."""
    top = float(np.nanmax(values, initial=0.0))
    axes.set_ylim(0, min(1.0, max(0.05, top * 1.12)) + 0.015)
    axes.yaxis.set_major_formatter(PERCENT)


def annotate(axes: Axes, point: tuple[float, float], text: str, offset: tuple[float, float], **place: Any) -> None:
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


def stack(
    axes: Axes,
    x: Column,
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


def merged(x: Column, layers: dict[str, Column]) -> tuple[Column, dict[str, Column], int]:
    """At most `COLUMNS` columns, each the mean of neighbouring rounds.

    Returns:
        The middle of each column, its layers, and how many rounds it stands for (the last one for fewer).
    """
    rounds = max(1, -(-x.size // COLUMNS))
    if rounds == 1:
        return x, layers, 1
    starts = np.arange(0, x.size, rounds)
    counts = np.diff([*starts, x.size])
    means = {name: np.add.reduceat(values, starts) / counts for name, values in layers.items()}
    return x[starts] + (rounds - 1) / 2, means, rounds


def of_rounds(name: str, rounds: int) -> str:
    """What a panel or line shows, where each of its values is the mean of several rounds."""
    return name if rounds == 1 else f"{name}, mean of {rounds} rounds"


def running_mean(values: Column, rounds: int) -> Column:
    """The mean of the known ones of so many neighbours around each value; NaN where none is known."""
    known, ones = ~np.isnan(values), np.ones(rounds)
    counts = np.convolve(known, ones, mode="same")
    sums = np.convolve(np.where(known, values, 0.0), ones, mode="same")
    return np.divide(sums, counts, out=np.full(values.shape, np.nan), where=counts > 0)


def layered(table: Table, key: str, value: str, order: Mapping[str, str]) -> tuple[Column, dict[str, Column]]:
    """A long table as one column per key over all iterations, known keys first, then the others by
    name."""
    iterations, keys, values = columns(table, "iteration", key, value)
    x = np.unique(np.asarray(iterations, dtype=np.float64))
    names = [name for name in order if name in set(keys)] + sorted(set(keys) - set(order))
    layers = {name: np.zeros(x.size) for name in names}
    for iteration, name, amount in zip(iterations, keys, values, strict=True):
        layers[name][np.searchsorted(x, iteration)] += amount or 0.0
    return x, layers


def numbers(table: Table, *names: str) -> list[Column]:
    """Columns as floats in the order of the first one (the iteration); None becomes NaN."""
    arrays = [np.array([np.nan if v is None else v for v in c], dtype=np.float64) for c in columns(table, *names)]
    order = np.argsort(arrays[0], kind="stable")
    return [array[order] for array in arrays]


def columns(table: Table, *names: str) -> list[list[Any]]:
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


def log_axis(axes: Axes, values: Column) -> None:
    """A log axis that is labelled at whole decades alone, and shows at least two of them."""
    axes.set_yscale("log")
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_ylim(10**low, 10 ** max(high, low + 1))
    axes.yaxis.set_minor_formatter(NullFormatter())


def line(axes: Axes, x: Column, y: Column, **style: Any) -> None:
    """A line; numbers without a neighbour, which a line would not show, get a marker."""
    known = ~np.isnan(y)
    beside = np.zeros_like(known)
    beside[1:] |= known[:-1]
    beside[:-1] |= known[1:]
    alone = np.flatnonzero(known & ~beside).tolist()
    marks: dict[str, Any] = {"marker": "o", "markersize": 5, "markevery": alone} if alone else {}
    axes.plot(x, y, **{"linewidth": 1.8} | marks | style)


def figure_png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        dpi: pixels per inch; 120 gives 624 pixels across.
    """
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_svg(figure: Figure, text: Literal["path", "none"] = "path") -> str:
    """The figure as an SVG document without dates or random ids; the same figure gives the same text.

    Args:
        figure: what to draw.
        text: ``path`` draws the letters, the same everywhere; ``none`` leaves them text in the reader's font.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reval", "svg.fonttype": text}):
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
