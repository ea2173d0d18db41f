"""Runs the blocks of ``sql/statements`` on an open connection.

Results are always read to their end: DuckDB streams them, and a half-read one blocks its connection. Tables go in and
out as Arrow; ``arrow={"part": table}`` makes a table visible to the statement under that name. A dataclass goes in by
`parameters` and comes out by `record`, both by the names of its fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from reval_core.store.sqlfiles import statement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = tuple[Any, ...]


def parameters(record: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass as values of a statement's ``$name``; mappings become JSON text."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: json.dumps(dict(v)) if isinstance(v, Mapping) else v for name, v in values.items()}


def rows(
    connection: duckdb.DuckDBPyConnection,
    area: str,
    name: str,
    arrow: Mapping[str, pa.Table] | None = None,
    /,
    **values: Any,
) -> list[Row]:
    """Run the statement and return all its rows."""
    with _visible(connection, arrow or {}):
        return connection.execute(statement(area, name), values or None).fetchall()


def row(connection: duckdb.DuckDBPyConnection, area: str, name: str, /, **values: Any) -> Row | None:
    """The first row of the statement's result, or None."""
    found = rows(connection, area, name, **values)
    return found[0] if found else None


def records(connection: duckdb.DuckDBPyConnection, area: str, name: str, /, **values: Any) -> list[dict[str, Any]]:
    """Run the statement and return all its rows by the names of their columns."""
    result = connection.execute(statement(area, name), values or None)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def record(connection: duckdb.DuckDBPyConnection, area: str, name: str, /, **values: Any) -> dict[str, Any] | None:
    """The first row of the statement's result by the names of its columns, or None."""
    found = records(connection, area, name, **values)
    return found[0] if found else None


def table(
    connection: duckdb.DuckDBPyConnection,
    area: str,
    name: str,
    arrow: Mapping[str, pa.Table] | None = None,
    /,
    **values: Any,
) -> pa.Table:
    """The result of a query as an Arrow table."""
    with _visible(connection, arrow or {}):
        return arrow_table(connection, statement(area, name), values)


def arrow_table(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]) -> pa.Table:
    """The result of a SQL text as an Arrow table; a text without a result gives an empty one."""
    relation = connection.sql(sql, params=dict(values) or None)
    return _with_own_names(relation.to_arrow_table()) if relation is not None else pa.table({})


def _with_own_names(table: pa.Table) -> pa.Table:
    """Columns that a join gave the same name become a, a_1, a_2: most that reads a table takes names as keys."""
    names: list[str] = []
    for name in table.column_names:
        own, count = name, 0
        while own in names:
            count += 1
            own = f"{name}_{count}"
        names.append(own)
    return table.rename_columns(names) if names != table.column_names else table


@contextmanager
def _visible(connection: duckdb.DuckDBPyConnection, arrow: Mapping[str, pa.Table]) -> Iterator[None]:
    for name, content in arrow.items():
        connection.register(name, content)
    yield
    # not after an error: the transaction is lost, the connection is closed next, and this would hide what went wrong
    for name in arrow:
        connection.unregister(name)
