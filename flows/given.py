"""What a person gives `reval sql`: SQL, a file of it, standard input or a name; and values for the ``$name`` in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import duckdb

from reval_core.errors import ConfigError

STANDARD_INPUT = "-"


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
        raise ConfigError("The query is empty: give SQL, the name of a query, a .sql file, or - for standard input.")
    return text


def parameters_of(sql: str) -> list[str]:
    """The names of the ``$name`` in a SQL text, in alphabetical order."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error:  # running it says what is wrong
        return []
    return sorted({name for statement in statements for name in statement.named_parameters if name.isidentifier()})
