"""What stands in a database file, and whether a copy has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import duckdb

from reval_core.errors import StoreError
from reval_core.process import ProcessIdentity
from reval_core.store import statements as sql
from reval_core.store.connection import explain
from reval_core.store.migrations import needs_migration, schema_version


def tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the base tables, without their schema ``store``."""
    return [name for (name,) in sql.rows(connection, "copies", "tables")]


def row_counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows of each base table."""
    return {name: _cell(connection, f"SELECT count(*) FROM store.{name}") for name in tables(connection)}


def row_digests(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Rows of each base table and the sum of their hashes: every row is read."""
    found = {}
    for name in tables(connection):
        rows = connection.execute(f"SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0) FROM store.{name} AS t")
        found[name] = rows.fetchall()[0]
    return found


def table_bytes(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """About how many bytes of the file each table takes; a block of several tables is divided among them."""
    block_size = sql.rows(connection, "maintenance", "size")[0][0]
    blocks = {
        name: [block for (block,) in sql.rows(connection, "maintenance", "blocks", table_name=f"store.{name}")]
        for name in tables(connection)
    }
    shared = Counter(block for found in blocks.values() for block in found)
    return {
        name: round(sum(block_size / shared[block] for block in found if block is not None and block >= 0))
        for name, found in blocks.items()
    }


def at_work(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Runs that a living process of this host works on, each with the process."""
    rows = sql.records(connection, "maintenance", "at_work")
    return [
        f"run {row['run_id']} by process {row['pid']} (attempt {row['attempt']})"
        for row in rows
        if ProcessIdentity(row["pid"], row["host"], row["process_started"]).is_alive()
    ]


def check(path: Path, rows: Mapping[str, int]) -> int:
    """Open a copy, hold it against the rows that the database had, and return its schema version.

    Every table is counted, every view asked for its columns, and payloads and trajectories held against each other.

    Raises:
        StoreError: it cannot be opened or read, is newer than this code, or has other rows.
    """
    try:
        with duckdb.connect(path, read_only=True) as connection:
            found = row_counts(connection)
            needs_migration(connection)
            version = schema_version(connection)
            for (view,) in sql.rows(connection, "maintenance", "views"):
                connection.execute(f'SELECT * FROM "{view}" LIMIT 0').fetchall()
            strays = sql.rows(connection, "maintenance", "strays")[0][0]
    except duckdb.Error as error:
        raise StoreError(explain(f"The copy {path} cannot be read", error)) from error
    if found != rows:
        raise StoreError(f"The copy {path} is not whole: {difference(rows, found)}. Try again.")
    if strays:
        raise StoreError(f"The copy {path} has {strays} payloads of no trajectory or twice: they moved meanwhile.")
    return version


def difference(wanted: Mapping[str, int], found: Mapping[str, int]) -> str:
    """The tables whose rows differ, each as ``table has 3 rows instead of 4``; empty when none does."""
    names = sorted({*wanted, *found})
    return ", ".join(
        f"{name} has {found.get(name, 0):,} rows instead of {wanted.get(name, 0):,}"
        for name in names
        if wanted.get(name) != found.get(name)
    )


def _cell(connection: duckdb.DuckDBPyConnection, text: str) -> int:
    return int(connection.execute(text).fetchall()[0][0])
