"""What a person gives `reval sql`: SQL, a file of it, standard input or a name; and values for the ``$name`` in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import duckdb

from reval_core.errors import ConfigError, StoreError
from reval_core.store import Store

STANDARD_INPUT = "-"
IDS = {
    "policy": ("policies", "policy_id"),
    "trajectory": ("store.trajectories", "trajectory_id"),
    "problem": ("problems", "problem_id"),
    "benchmark": ("evaluations", "benchmark"),
}
"""Parameters of named queries that stand for a stored thing: where it is, and the column that names it."""
SHOWN = 5
"""Names that an error lists at most."""


def text_of(query: str) -> str:
    """The SQL of a ``.sql`` file or, for ``-``, of standard input; anything else as it is.

    Raises:
        ConfigError: the file cannot be read, or there is nothing in it.
    """
    path, text = query.strip(), query
    try:
        if path == STANDARD_INPUT:
            text = sys.stdin.read()
        elif path.endswith(".sql") and len(path.splitlines()) == 1:
            text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {os.strerror(error.errno or 0)}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: {error}.") from error
    if not text.strip():
        raise ConfigError(
            "The query is empty. `reval sql` alone opens a prompt; a .sql file or - for standard input do, too."
        )
    return text


def parameters_of(sql: str) -> list[str]:
    """The names of the ``$name`` in a SQL text, in alphabetical order."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error:  # running it says what is wrong
        return []
    return sorted({name for statement in statements for name in statement.named_parameters if name.isidentifier()})


def whole_id(store: Store, parameter: str, text: str) -> str:
    """The id that a named query's parameter begins with; a value that stands for no stored thing as it is.

    Raises:
        StoreError: nothing in the store begins so, or several do.
    """
    if parameter not in IDS:
        return text
    view, column = IDS[parameter]
    sql = (
        f"SELECT DISTINCT {column} AS name FROM {view} WHERE starts_with({column}, $text) ORDER BY 1 LIMIT {SHOWN + 1}"
    )
    found = [str(row["name"]) for row in store.query(sql, text=text).to_pylist()]
    if text in found or len(found) == 1:
        return text if text in found else found[0]
    if found:
        more = ", ..." if len(found) > SHOWN else ""
        raise StoreError(f"Several begin with {text!r}: {', '.join(found[:SHOWN])}{more}. Give more letters.")
    raise StoreError(f"There is no {parameter} {text} in this store: no {column} of {view} begins so.")
