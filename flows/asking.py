"""Answers about what is stored: SQL, the list of runs, where a report is."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.opening import counted
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store
from reval_core.store.sqlfiles import description, query_names, query_text
from reval_core.store.stages import ProcessIdentity

READ_WAIT_S = 30.0
"""Seconds that a reader waits for a run's commit to end; commits take a fraction of one."""
PIPE_WIDTH = 240
"""Characters of a line where there is no terminal."""
SHOWN = 5
"""Runs that an error lists at most."""


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
        with _writing(parquet):
            pyarrow.parquet.write_table(result, parquet)
        console.print(f"{counted(result.num_rows, 'row')} written to {parquet}", markup=False, soft_wrap=True)
    elif csv:
        with _writing(None):
            pyarrow.csv.write_csv(_plain(result), sys.stdout.buffer)
            sys.stdout.buffer.flush()
    elif as_json:
        with _writing(None):
            for row in result.to_pylist():
                print(json.dumps(_finite(row), default=str, ensure_ascii=False))
            sys.stdout.flush()
    else:
        with _writing(None):
            _show(result, console, limit)


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    """Say which file, and which column, cannot be written.

    Raises:
        StoreError: the file cannot be written, or the format has no such type.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{path or 'The output'} cannot be written: {reason}.") from error
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"This format cannot hold the result: {error}. Cast the column, as column::VARCHAR."
        ) from error


def _finite(value: Any) -> Any:
    """The value with NaN and infinities as None: JSON has no such numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def parameters(home: Home, query: str, given: list[str]) -> dict[str, str]:
    """``["run=abc"]`` to ``{"run": "abc-1a2b3c4d"}``: the first letters of a run's id stand for it.

    Raises:
        ConfigError: one is not written so, or the query has no such parameter.
        StoreError: the query takes a ``$run``, and no run, or several, begin so.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if wrong:
        raise ConfigError(f"--param {wrong[0]!r}: write it as name=value, for example run=quickstart-1a2b3c4d.")
    values = {name: value for name, _, value in pairs}
    text = query_text(query.strip()) if query.strip() in query_names() else query
    taken = sorted(set(re.findall(r"\$([A-Za-z_]\w*)", text)))
    for name in values:
        if name not in taken:
            known = f"it takes {', '.join(f'${other}' for other in taken)}" if taken else "it takes none"
            raise ConfigError(f"--param {name}: the query has no ${name}; {known}.")
    if "run" in values:
        values["run"] = find_run(store_of(home), values["run"])
    return values


def find_run(store: Store, text: str) -> str:
    """The run's id from its first letters.

    Raises:
        StoreError: no run begins so, or several do; says which there are.
    """
    rows = store.query("SELECT run_id FROM runs ORDER BY last_active_at DESC").to_pylist()
    names = [str(row["run_id"]) for row in rows]
    found = [text] if text in names else [name for name in names if name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        more = ", ..." if len(found) > SHOWN else ""
        raise StoreError(f"{len(found)} runs begin with {text!r}: {', '.join(found[:SHOWN])}{more}. Give more letters.")
    near = difflib.get_close_matches(text, names, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`reval runs` lists what there is."
    raise StoreError(f"There is no run {text} in this store. {hint}")


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
        console = Console(
            width=PIPE_WIDTH, highlight=False, emoji=False
        )  # a pipe has no width; do not fold what a program reads
    table = Table(show_edge=False, header_style="bold")
    for field in result.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in result.slice(0, limit).to_pylist():
        table.add_row(*[_cell(value) for value in row.values()])
    console.print(table)
    more = result.num_rows - limit
    console.print(counted(result.num_rows, "row") + (f", {more} not shown (--limit, --csv)" if more > 0 else ""))


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
    """Runs in the order in which they were made, forks under their parents."""
    rows = store_of(home).query("SELECT * FROM runs ORDER BY created_at").to_pylist()
    if not rows:
        console.print("There is no run in this store yet. Start one: reval train configs/quickstart.yaml")
        return
    dead = _dead_runs(home)
    known = {row["run_id"] for row in rows}
    children: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        children[row["parent_run_id"] if row["parent_run_id"] in known else None].append(row)

    def show(row: dict[str, Any], depth: int) -> None:
        forked = f" from round {row['fork_iteration']}" if row["parent_run_id"] else ""
        status = "killed" if row["run_id"] in dead else row["status"] or "never started"
        console.print(
            f"{'   ' * (depth - 1) + '└─ ' if depth else ''}[bold]{escape(row['run_id'])}[/]{forked}  "
            f"{counted(row['rounds_done'], 'round')}, {counted(row['trajectories'], 'response')}, {status}, "
            f"{row['last_active_at']:%Y-%m-%d %H:%M} UTC",
            soft_wrap=True,
        )
        for child in children[row["run_id"]]:
            show(child, depth + 1)

    console.print(f"runs in {home.root}", markup=False, soft_wrap=True)
    for row in children[None]:
        show(row, 0)


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


def show_report(home: Home, run: str | None, console: Console) -> None:
    """Where the report of a run is; without a name, of the run that was active last among those that have one."""
    store = store_of(home)
    if run is None:
        rows = store.query("SELECT run_id FROM runs ORDER BY last_active_at DESC").to_pylist()
        pages = [page for row in rows if (page := _page(home, row["run_id"])).exists()]
        if not pages:
            raise StoreError(
                "No run of this store has a report yet: it is written when a run ends. `reval runs` lists the runs."
            )
        page = pages[0]
    else:
        run_id = find_run(store, run)
        page = _page(home, run_id)
        if not page.exists():
            raise StoreError(f"Run {run_id} has no report yet: it is written when the run ends. Expected at {page}.")
    console.print(str(page), markup=False, soft_wrap=True)


def _page(home: Home, run_id: str) -> Path:
    return home.reports / run_id / "report.html"
