"""Writes docs/schema.md from the database that sql/ makes, and docs/commands.md from the command line.

    python docs/make_reference.py

Both files are written whole; a test asserts that they are up to date.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import typer

from flows.cli import app
from reval_core.store import Store

DOCS = Path(__file__).parent

SCHEMA = """# Schema of the store

Written by `docs/make_reference.py` from `sql/migrations/` and `sql/views/`. The **views** are for people and programs
outside, and a test holds their columns. The **tables** below them, in the schema `store`, may change with a version;
[SQL](sql.md) shows how to ask. In a database itself the same stands in `duckdb_columns()`, in the column `comment`.
"""

COMMANDS = """# Commands

Written by `docs/make_reference.py` from the command line itself; a command with `--help` prints the same. What reads or
writes a store does so under one root: the environment variable `REVAL_HOME`, else the nearest folder .reval upwards
from here. Exit codes: 0 done; 1 an error, on standard error, that says what to do; 2 the command line was not
understood; 130 asked to end by Ctrl-C or SIGTERM.

`reval` with `--install-completion` lets the shell complete commands, options and file names by Tab, from the next
terminal on (bash, zsh, fish, PowerShell); with `--show-completion` it prints what that would add.

Before the command stand `--quiet` (no progress), `--verbose` (the log, too) and `--debug` (the traceback of an error,
too; also by REVAL_DEBUG=1). Colours and bars are for terminals; a pipe gets plain lines.
"""


def schema() -> str:
    """The page of views and tables, each with its columns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reval.duckdb"
        Store(path).prepare()
        with duckdb.connect(path, read_only=True) as connection:
            views = connection.execute(
                "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' ORDER BY ALL"
            ).fetchall()
            tables = connection.execute(
                "SELECT 'store.' || table_name, comment FROM duckdb_tables() "
                "WHERE schema_name = 'store' AND table_name <> 'schema_migrations' ORDER BY ALL"
            ).fetchall()
            parts = [
                SCHEMA,
                "## Views\n",
                *_relations(connection, views),
                "## Tables\n",
                *_relations(connection, tables),
            ]
    return "\n".join(parts)


def _relations(connection: duckdb.DuckDBPyConnection, relations: list[tuple[str, str]]) -> Iterator[str]:
    for name, comment in relations:
        schema_name, _, table = name.rpartition(".")
        columns = connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            "WHERE schema_name = $schema AND table_name = $table ORDER BY column_index",
            {"schema": schema_name or "main", "table": table},
        ).fetchall()
        yield f"### `{name}`\n\n{comment}\n"
        yield _table(("Column", "Type", "Meaning"), [(f"`{c}`", t.lower(), about or "") for c, t, about in columns])


def commands() -> str:
    """The page of the command line: each command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    return "\n".join([COMMANDS, *_group(group, "reval")])


def _group(group: Any, prefix: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _group(command, f"{prefix} {name}")
            continue
        yield f"## {prefix} {name}\n\n{_words(command.help)}\n"
        rows = [_parameter(parameter) for parameter in command.params]
        if rows:
            yield _table(("", "Default", "Meaning"), rows)


def _parameter(parameter: Any) -> tuple[str, str, str]:
    named = parameter.param_type_name == "option"
    default = "" if parameter.default in (None, False, "") or callable(parameter.default) else f"`{parameter.default}`"
    name = ", ".join(f"`{option}`" for option in parameter.opts) if named else parameter.name.upper()
    return name, "required" if parameter.required else default, _words(getattr(parameter, "help", "") or "")


def _words(text: str) -> str:
    return " ".join(text.replace("\b", "").split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"


PAGES = {"schema.md": schema, "commands.md": commands}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
