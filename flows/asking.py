"""Answers about what is stored: SQL, the list of runs, where a report is."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows import given
from flows.comma import csv_lines
from flows.opening import counted
from flows.terminal import unfolded
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.identity import finite
from reval_core.store import Store
from reval_core.store.ids import whole_id
from reval_core.store.sqlfiles import description, query_names, query_text
from reval_core.visible import visible

READ_WAIT_S = 30.0
"""Seconds that a reader waits for a run's commit to end; commits take a fraction of one."""
SHOWN = 5
"""Runs that an error lists at most."""
ENDINGS = (".csv", ".json", ".parquet")
"""Of files that `write_file` knows how to write."""
RULE_WIDTH = 80
"""Characters of the line above a row, where the terminal is no narrower."""
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
    expanded: bool,
    limit: int,
) -> None:
    """Run a query and show its result as a table, one column a line, as CSV, JSON lines or a Parquet file.

    Raises:
        ConfigError: a ``$name`` of it has no value, it is the name of a view, or several formats are asked for.
    """
    if sum((csv, as_json, parquet is not None, expanded)) > 1:
        raise ConfigError("Choose one of --csv, --json, --parquet and -x.")
    store = store_of(home)
    name = query.strip()
    if name.isidentifier() and name not in query_names() and name in _views(store):
        raise ConfigError(
            f'{name} is a view, not a named query: "FROM {name}" shows its rows, "SELECT column_name, comment FROM '
            f"duckdb_columns() WHERE table_name = '{name}'\" its columns."
        )
    values, run = with_newest_run(store, query, values)
    missing = [name for name in given.parameters_of(query) if name not in values and query.strip() not in query_names()]
    if missing:
        raise ConfigError(f"${missing[0]} has no value. Give it one: --param {missing[0]}=VALUE")
    result = with_readable_intervals(store.query(query, **values))
    if parquet is not None:
        with writing(parquet):
            pyarrow.parquet.write_table(result, parquet)
        console.print(f"{counted(result.num_rows, 'row')} written to {parquet}", markup=False, soft_wrap=True)
    elif csv:
        with writing(None):
            sys.stdout.buffer.writelines(line.encode() for line in csv_lines(result))
            sys.stdout.buffer.flush()
    elif as_json:
        with writing(None):
            for line in _json_lines(result):
                print(line)
            sys.stdout.flush()
    else:
        with writing(None):
            display = show_expanded if expanded else show
            display(result, console, limit)
            if run is not None:
                console.print(f"of {run}, the newest run (--param run=RUN for another)", markup=False, soft_wrap=True)


def _views(store: Store) -> list[str]:
    """Names of the public views."""
    return store.query("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main'").column(0).to_pylist()


def with_newest_run(store: Store, query: str, values: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """The values with the run that a named query is about where none was given; and that run, else None."""
    name = query.strip()
    if name not in query_names() or "run" in values or "run" not in given.parameters_of(query_text(name)):
        return dict(values), None
    run = store.query("SELECT newest_run() AS run").to_pylist()[0]["run"]
    return (dict(values), None) if run is None else ({**values, "run": run}, run)


def with_readable_intervals(result: pa.Table) -> pa.Table:
    """Intervals as text, in DuckDB's words: no file format and no table has any others."""
    for index, field in enumerate(result.schema):
        if pa.types.is_interval(field.type):
            intervals = duckdb.from_arrow(pa.table({"span": result.column(index)}))
            text = intervals.project("span::VARCHAR").to_arrow_table().column(0)
            result = result.set_column(index, field.name, text)
    return result


def write_file(result: pa.Table, path: Path) -> None:
    """Write a result as CSV, JSON lines or Parquet, by the ending of the file's name (one of `ENDINGS`)."""
    with writing(path):
        if path.suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                file.writelines(csv_lines(result))
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
    return (json.dumps(finite(row), default=_json_value, ensure_ascii=False) for row in result.to_pylist())


def _json_value(value: Any) -> Any:
    """A value that JSON has no type for: a decimal as a number, anything else as text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def parameters(home: Home, query: str, pairs_given: list[str]) -> dict[str, str]:
    """``["run=abc"]`` to ``{"run": "abc-1a2b3c4d"}``: the first letters of a run's id stand for it.

    So do, in a named query, those of a policy, a trajectory, a problem or a benchmark.

    Raises:
        ConfigError: one is not written so, or the query has no such parameter.
        StoreError: nothing in the store, or several things, begin so.
    """
    pairs = [text.partition("=") for text in pairs_given]
    wrong = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if wrong:
        raise ConfigError(f"Parameter {wrong[0]!r}: write it as name=value, for example run=quickstart-1a2b3c4d.")
    values = {name: value for name, _, value in pairs}
    is_named = query.strip() in query_names()
    taken = given.parameters_of(query_text(query.strip()) if is_named else query)
    for name in values:
        if name not in taken:
            known = f"it takes {', '.join(f'${other}' for other in taken)}" if taken else "it takes none"
            raise ConfigError(f"Parameter {name}: the query has no ${name}; {known}.")
    for name, text in values.items():
        if name == "run":
            values[name] = find_run(store_of(home), text)
        elif is_named:
            values[name] = whole_id(store_of(home), name, text)
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


def show(
    result: pa.Table,
    console: Console,
    limit: int,
    more: str = "--limit, --csv",
    wide: str = "-x for one column a line, --csv",
) -> None:
    """Show the first ``limit`` rows as a table, on a terminal the first columns that fit into it.

    Args:
        more: how to get the other rows.
        wide: how to get the other columns.
    """
    console = unfolded(console)
    rows = result.slice(0, limit)
    if console.is_terminal:
        rows = rows.select(range(fitting(rows, console.width)))
    table = Table(show_edge=False, header_style="bold")
    for field in rows.schema:
        number = _is_number(field.type)
        table.add_column(escape(field.name), justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows.to_pylist():
        table.add_row(*[cell(value) for value in row.values()])
    console.print(table)
    console.print(rows_shown(result, limit, more))
    if hidden := result.num_columns - rows.num_columns:
        console.print(f"{counted(hidden, 'column')} not shown ({wide})", markup=False, soft_wrap=True)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def fitting(rows: pa.Table, width: int) -> int:
    """How many of a table's first columns fit into a terminal of ``width`` characters, at least one."""
    used = 0
    for number, (field, column) in enumerate(zip(rows.schema, rows.columns, strict=True)):
        longest = max(map(cell_len, (field.name, *map(cell, column.to_pylist()))))
        # a space on each side and the line between
        used += (longest if _is_number(field.type) else min(longest, TEXT_WIDTH)) + 3
        if used > width and number:
            return number
    return rows.num_columns


def show_expanded(result: pa.Table, console: Console, limit: int, more: str = "--limit, --csv") -> None:
    """The first ``limit`` rows, each a block of a line for each column; texts whole and with their own line breaks."""
    console = unfolded(console)
    for number, row in enumerate(result.slice(0, limit).to_pylist(), start=1):
        console.print(f"─[ row {number} ]".ljust(min(console.width, RULE_WIDTH), "─"), markup=False)
        block = Table.grid("name", "value", padding=(0, 1))
        block.columns[0].no_wrap, block.columns[1].overflow = True, "fold"
        for name, value in row.items():
            block.add_row(Text(name, style="bold"), Text(visible(_words(value), keep="\n\t")))
        console.print(block)
    console.print(rows_shown(result, limit, more))


def rows_shown(result: pa.Table, limit: int, more: str) -> str:
    """How many rows a result has, and how to get those after the first ``limit``."""
    left = result.num_rows - limit
    return counted(result.num_rows, "row") + (f", {left} not shown ({more})" if left > 0 else "")


def cell(value: Any) -> str:
    """A value as a table on the terminal shows it: short, and on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        # four digits, but the whole part as it is: 12346, not 1.235e+04
        return f"{value:.0f}" if 1e3 <= abs(value) < 1e16 else f"{value:.4g}"
    text = visible(_words(value))
    return escape(text if len(text) <= 200 else text[:197] + "...")


def _words(value: Any) -> str:
    """A value as SQL writes it; NULL is nothing."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def list_queries(console: Console) -> None:
    """Names of the named queries, the parameters that each takes, and the question that it answers."""
    console = unfolded(console)
    table = Table("name", "takes", "what it answers", show_edge=False)
    for name in query_names():
        text = query_text(name)
        question = description(text.partition("\n")[0])
        table.add_row(name, ", ".join(f"${parameter}" for parameter in given.parameters_of(text)), escape(question))
    console.print(table)
    console.print(
        '\nreval sql NAME, or "select ... from trajectories", a file.sql, or - for standard input. NAME --show prints '
        'the text of a query with what its columns mean; "show tables" lists the views, "describe rounds" the columns '
        "of one.",
        markup=False,
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
