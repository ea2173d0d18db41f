"""The paper's Table 1 with our policies beside it, on the terminal and as a page: ``reval report --table1``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from flows.asking import store_of
from flows.terminal import unfolded
from reval_core.evaluation.metrics import bootstrap_average
from reval_core.home import Home
from reval_core.reporting.html import Interval, Page, Section, Table, render_page
from reval_core.store import Store, evaluations

BENCHMARKS = ("aime24", "aime25", "amc", "math500", "minerva", "olympiadbench", "gpqa")
NOTE = (
    "Accuracy of one sample (avg@k) in percent. The published rows are Table 1 of arXiv 2603.23355: k = 16, at most "
    "100 problems of each benchmark (which ones is not told), no seeds, no intervals; sampling alone moves AIME by up "
    "to 2.3 points. Ours carry 95 % intervals over problems; rows compare as far as subset, k, length, temperature do."
)
OURS = (
    "Of each run the last policy that was evaluated on one of these benchmarks, and base models. The mean is over the "
    "benchmarks that a row has, so only a mean of 7 compares with the paper's."
)
Row = list[dict[str, Any]]
"""One policy: its benchmarks."""


def write_table1(home: Home) -> tuple[list[Row], Path]:
    """Ask the store, write ``reports/table1.html``; returns the rows and the page."""
    store = store_of(home)
    rows = table_rows(store)
    page = home.reports / "table1.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_page(page_of(store, rows)), encoding="utf-8")
    return rows, page


def table_rows(store: Store) -> list[Row]:
    """The result of the query ``table1``, a list for each policy."""
    found = store.query("table1").to_pylist()
    return [
        list(group) for _, group in groupby(found, lambda r: (r["source"], r["model"], r["method"], r["policy_id"]))
    ]


def page_of(store: Store, rows: list[Row]) -> Page:
    """The page; our means over benchmarks with intervals from the stored samples."""
    ours = [row for row in rows if _is_ours(row)]
    how = [
        [who(row), one["benchmark"], one["samples_per_problem"], one["problem_count"], one["policy_id"]]
        for row in ours
        for one in row
    ]
    published = [_line(store, row) for row in rows if not _is_ours(row)]
    head = ["", *BENCHMARKS, "mean", "of"]
    return Page(
        kind="ReVal beside the paper",
        title="Table 1",
        identity="reval sql table1",
        created=f"ours in this store: {len(ours)}",
        sections=[
            Section("Published", NOTE, tables=[Table("", head, published)]),
            Section("Ours", OURS, tables=[Table("", head, [_line(store, row) for row in ours])] if ours else []),
            Section(
                "How ours were measured",
                tables=[Table("", ["policy", "benchmark", "samples, k", "problems", "policy id"], how)] if ours else [],
            ),
        ],
    )


def show(rows: list[Row], store: Store, console: Console) -> None:
    """Print the table; intervals are on the page."""
    grid = Grid("", *BENCHMARKS, "mean", "of", show_edge=False)
    for _, group in groupby(rows, _is_ours):
        for row in group:
            name, *cells, count = _line(store, row)
            grid.add_row(escape(name), *("" if cell is None else cell.shown for cell in cells), str(count))
        grid.add_section()
    unfolded(console).print(grid)


def who(row: Row) -> str:
    """Model and method, and of ours the run."""
    one = row[0]
    run = f", {one['run_id']} after {one['rounds_learned']} rounds" if one["run_id"] else ""
    return f"{one['model']} {one['method']}{run}"


def _is_ours(row: Row) -> bool:
    return bool(row[0]["source"] == "ours")


def _line(store: Store, row: Row) -> list[Any]:
    """Name, a cell for each benchmark, their mean, and of how many it is."""
    by_name = {one["benchmark"]: _cell(one) for one in row}
    return [who(row), *(by_name.get(name) for name in BENCHMARKS), _mean(store, row), len(row)]


def _cell(one: dict[str, Any]) -> Interval:
    return Interval(one["value"], one["low"], one["high"], digits=1, alone=one["source"] == "published")


def _mean(store: Store, row: Row) -> Interval:
    """Over the benchmarks that the row has; of ours with the interval from the stored samples."""
    if not _is_ours(row):
        return Interval(fmean(one["value"] for one in row), digits=1, alone=True)
    with store.read() as connection:
        scores = [evaluations.samples(connection, one["evaluation_id"]).correct.mean(axis=1) for one in row]
    found = bootstrap_average(scores)
    return Interval(100 * found.value, 100 * found.low, 100 * found.high, digits=1)
