"""Finds the SQL of the project: ``sql/`` in a checkout, ``reval_core/_sql`` in an installed wheel.

A file in ``sql/queries`` is one named query; a file in ``sql/statements`` holds several blocks, each after a line
``-- name: NAME``. The first comment lines of a file say what it answers.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

from reval_core.errors import StoreError

_BLOCK = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


@cache
def sql_root() -> Path:
    """The folder that holds migrations, views, queries and statements."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_sql", package.parent / "sql"):
        if (candidate / "migrations").is_dir():
            return candidate
    raise StoreError("The folder sql/ is missing from this installation; install the package again.")


def ordered(folder: str) -> list[Path]:
    """The .sql files of one folder in the order of their names."""
    return sorted((sql_root() / folder).glob("*.sql"))


@cache
def statement(area: str, name: str) -> str:
    """The block ``name`` of ``sql/statements/<area>.sql``."""
    text = (sql_root() / "statements" / f"{area}.sql").read_text(encoding="utf-8")
    parts = _BLOCK.split(text)
    blocks = dict(zip(parts[1::2], parts[2::2], strict=True))
    return blocks[name].strip().rstrip(";")


def query_names() -> list[str]:
    """Names of the queries people can run."""
    return [path.stem for path in ordered("queries")]


def query_text(name: str) -> str:
    """The SQL of a named query.

    Raises:
        StoreError: no query has that name.
    """
    if name not in query_names():
        near = difflib.get_close_matches(name, query_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StoreError(f"There is no query {name!r}.{hint} Known: {', '.join(query_names())}.")
    return (sql_root() / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def description(text: str) -> str:
    """The comment lines at the head of a SQL text, as one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)
