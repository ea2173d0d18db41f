"""Answers about what is stored: SQL, the list of runs, where a report is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store
from reval_core.store.sqlfiles import description, query_names, query_text
from reval_core.store.stages import ProcessIdentity

READ_WAIT_S = 30.0
"""Seconds that a reader waits for a run's commit to end; commits take a fraction of one."""


def store_of(home: Home) -> Store:
    """The store, to read from."""
    return Store(home.database, lock_wait_s=READ_WAIT_S)


def ask(
    home: Home,
    query: str,
    values: dict[str, str],
    console: Console,
    *,
    csv: bool,
    as_json: bool,
    parquet: Path | None,
    limit: int,
) -> None:
    """Run a query and show its result as a table, CSV, JSON lines or a Parquet file."""
    result = store_of(home).query(query, **values)
    if parquet is not None:
        pyarrow.parquet.write_table(result, parquet)
        console.print(f"{result.num_rows} rows written to {parquet}", markup=False)
    elif csv:
        pyarrow.csv.write_csv(_plain(result), sys.stdout.buffer)
    elif as_json:
        for row in result.to_pylist():
            print(json.dumps(row, default=str, ensure_ascii=False))
    else:
        _show(result, console, limit)


def parameters(given: list[str]) -> dict[str, str]:
    """``["run=abc"]`` to ``{"run": "abc"}``.

    Raises:
        ConfigError: one is not written so.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if wrong:
        raise ConfigError(f"--param {wrong[0]!r}: write it as name=value, for example run=quickstart-1a2b3c4d.")
    return {name: value for name, _, value in pairs}


def _plain(table: pa.Table) -> pa.Table:
    """Lists as JSON text, since CSV has none."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        nested = pa.types.is_nested(column.type)
        columns[name] = pa.array([json.dumps(v, default=str) for v in column.to_pylist()]) if nested else column
    return pa.table(columns)


def _show(result: pa.Table, console: Console, limit: int) -> None:
    if not console.is_terminal:
        console = Console(width=240, highlight=False)  # a pipe has no width; do not fold what a program reads
    table = Table(show_edge=False, header_style="bold")
    for field in result.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in result.slice(0, limit).to_pylist():
        table.add_row(*[_cell(value) for value in row.values()])
    console.print(table)
    more = result.num_rows - limit
    console.print(f"{result.num_rows} rows" + (f", {more} not shown (--limit, --csv)" if more > 0 else ""))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value).replace("\n", "\\n")
    return escape(text if len(text) <= 200 else text[:197] + "...")


def list_queries(console: Console) -> None:
    """Names and purposes of the named queries."""
    table = Table("name", "what it answers", show_edge=False)
    for name in query_names():
        table.add_row(name, escape(description(query_text(name))))
    console.print(table)
    console.print(
        '\nreval sql NAME, or reval sql "select ... from trajectories". reval sql "show tables" lists the views.'
    )


def list_runs(home: Home, console: Console) -> None:
    """Runs as a tree of forks."""
    rows = store_of(home).query("SELECT * FROM runs ORDER BY created_at").to_pylist()
    dead = _dead_runs(home)
    tree = Tree(f"runs in {home.root}")
    nodes: dict[str, Tree] = {}
    for row in rows:
        parent = nodes.get(row["parent_run_id"], tree)
        forked = f" from round {row['fork_iteration']}" if row["parent_run_id"] else ""
        status = "killed" if row["run_id"] in dead else row["status"]
        nodes[row["run_id"]] = parent.add(
            f"[bold]{row['run_id']}[/]{forked}  {row['rounds_done']} rounds, {row['trajectories']} trajectories, "
            f"{status}, last active {row['last_active_at']:%Y-%m-%d %H:%M} UTC"
        )
    console.print(tree)


def _dead_runs(home: Home) -> set[str]:
    """Runs that are recorded as running by a process that is gone."""
    running = store_of(home).query(
        "SELECT run_id, pid, host, process_started FROM store.attempts WHERE status = 'running'"
    )
    return {
        row["run_id"]
        for row in running.to_pylist()
        if ProcessIdentity(row["pid"], row["host"], row["process_started"]).is_alive() is False
    }


def newest_run(store: Store) -> str:
    """Id of the run that was started last."""
    rows = store.query("SELECT newest_run() AS run_id").to_pylist()
    if rows[0]["run_id"] is None:
        raise StoreError("There is no run in this store yet. Start one: reval train configs/quickstart.yaml")
    return str(rows[0]["run_id"])


def show_report(home: Home, run: str | None, console: Console) -> None:
    """Where the report of a run is."""
    store = store_of(home)
    run_id = run or newest_run(store)
    if not store.query("SELECT 1 FROM runs WHERE run_id = $run", run=run_id).num_rows:
        raise StoreError(f"There is no run {run_id} in this store. `reval runs` lists what there is.")
    page = home.reports / run_id / "report.html"
    if not page.exists():
        raise StoreError(f"Run {run_id} has no report yet: it is written when the run ends. Expected at {page}.")
    console.print(str(page), markup=False, soft_wrap=True)
