"""Answers about what is stored: SQL, the list of runs, where a report is."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows.opening import counted
from flows.terminal import unfolded, visible
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.identity import finite
from reval_core.store import Store
from reval_core.store.sqlfiles import description, query_names, query_text

READ_WAIT_S = 30.0
"""Seconds that a reader waits for a run's commit to end; commits take a fraction of one."""
SHOWN = 5
"""Runs that an error lists at most."""
ENDINGS = (".csv", ".json", ".parquet")
"""Of files that `write_file` knows how to write."""
TEXT_WIDTH = 20
"""Characters that a column of texts needs at least, when columns are counted that fit into the terminal."""


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
        with writing(parquet):
            pyarrow.parquet.write_table(result, parquet)
        console.print(f"{counted(result.num_rows, 'row')} written to {parquet}", markup=False, soft_wrap=True)
    elif csv:
        with writing(None):
            pyarrow.csv.write_csv(_plain(result), sys.stdout.buffer)
            sys.stdout.buffer.flush()
    elif as_json:
        with writing(None):
            for line in _json_lines(result):
                print(line)
            sys.stdout.flush()
    else:
        with writing(None):
            show(result, console, limit)


def write_file(result: pa.Table, path: Path) -> None:
    """Write a result as CSV, JSON lines or Parquet, by the ending of the file's name (one of `ENDINGS`)."""
    with writing(path):
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(_plain(result), path)
        elif path.suffix == ".json":
            path.write_text("".join(f"{line}\n" for line in _json_lines(result)), encoding="utf-8")
        else:
            pyarrow.parquet.write_table(result, path)


@contextmanager
def writing(path: Path | None) -> Iterator[None]:
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
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OverflowError) as error:  # the last: dates beyond Python's
        raise StoreError(
            f"This format cannot hold the result: {error}. Cast the column, as column::VARCHAR."
        ) from error


def _json_lines(result: pa.Table) -> Iterator[str]:
    return (json.dumps(finite(row), default=str, ensure_ascii=False) for row in result.to_pylist())


def parameters(home: Home, query: str, given: list[str]) -> dict[str, str]:
    """``["run=abc"]`` to ``{"run": "abc-1a2b3c4d"}``: the first letters of a run's id stand for it.

    Raises:
        ConfigError: one is not written so, or the query has no such parameter.
        StoreError: the query takes a ``$run``, and no run, or several, begin so.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if wrong:
        raise ConfigError(f"Parameter {wrong[0]!r}: write it as name=value, for example run=quickstart-1a2b3c4d.")
    values = {name: value for name, _, value in pairs}
    text = query_text(query.strip()) if query.strip() in query_names() else query
    taken = sorted(set(re.findall(r"\$([A-Za-z_]\w*)", text)))
    for name in values:
        if name not in taken:
            known = f"it takes {', '.join(f'${other}' for other in taken)}" if taken else "it takes none"
            raise ConfigError(f"Parameter {name}: the query has no ${name}; {known}.")
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


def show(result: pa.Table, console: Console, limit: int, more: str = "--limit, --csv") -> None:
    """Show the first ``limit`` rows as a table; ``more`` says how to get the others."""
    console = unfolded(console)
    table = Table(show_edge=False, header_style="bold")
    for field in result.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(escape(field.name), justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in result.slice(0, limit).to_pylist():
        table.add_row(*[cell(value) for value in row.values()])
    console.print(table)
    console.print(rows_shown(result, limit, more))


def fitting(rows: pa.Table, width: int) -> int:
    """How many of a table's first columns fit into a terminal of ``width`` characters, at least one."""
    used = 0
    for number, (field, column) in enumerate(zip(rows.schema, rows.columns, strict=True)):
        longest = max(map(cell_len, (field.name, *map(cell, column.to_pylist()))))
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        used += (longest if is_number else min(longest, TEXT_WIDTH)) + 3  # a space on each side and the line between
        if used > width and number:
            return number
    return rows.num_columns


def show_expanded(rows: pa.Table, console: Console) -> None:
    """Each row as a block of lines, one for each column; texts whole and with their own line breaks."""
    for number, row in enumerate(rows.to_pylist(), start=1):
        console.print(f"─[ row {number} ]".ljust(console.width, "─"), markup=False)
        block = Table.grid("name", "value", padding=(0, 1))
        block.columns[0].no_wrap, block.columns[1].overflow = True, "fold"
        for name, value in row.items():
            text = "" if value is None else visible(str(value), keep="\n\t")
            block.add_row(Text(name, style="bold"), Text(text))
        console.print(block)


def rows_shown(result: pa.Table, limit: int, more: str) -> str:
    """How many rows a result has, and how to get those after the first ``limit``."""
    left = result.num_rows - limit
    return counted(result.num_rows, "row") + (f", {left} not shown ({more})" if left > 0 else "")


def cell(value: Any) -> str:
    """A value as a table on the terminal shows it: short, and on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = visible(str(value))
    return escape(text if len(text) <= 200 else text[:197] + "...")


def list_queries(console: Console) -> None:
    """Names and purposes of the named queries."""
    console = unfolded(console)
    table = Table("name", "what it answers", show_edge=False)
    for name in query_names():
        table.add_row(name, escape(description(query_text(name))))
    console.print(table)
    console.print(
        '\nreval sql NAME, or reval sql "select ... from trajectories". reval sql "show tables" lists the views.'
    )


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
