"""Consistent copies of the database while a run writes: what snapshots, backups and a vacuum are made of.

Narrow tables are copied in one transaction. Payloads (tokens and texts) never change and are only ever added, so they
are copied in slices, each with a short connection: writers wait while somebody reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from reval_core.errors import StoreError
from reval_core.store import statements as sql
from reval_core.store.connection import Connections, explain
from reval_core.store.migrations import now

SLICE_BYTES = 64_000_000
"""Payload that is copied with one connection."""


@dataclass(frozen=True)
class Copied:
    """What a copy has."""

    taken_at: datetime
    """UTC; the copy is the database as it was then."""
    payloads: bool
    """Whether tokens and texts are in it."""
    source: str
    """State of the database's files when it was taken (`state_of`)."""


def state_of(database: Path) -> str:
    """Something that changes whenever the database's files do."""
    files = [database, database.with_name(f"{database.name}.wal")]
    return " ".join(f"{f.stat().st_mtime_ns}-{f.stat().st_size}" for f in files if f.exists())


def copy_database(
    connections: Connections,
    to: Path,
    *,
    payloads: bool | Callable[[int], bool],
    mark: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Copied:
    """Copy schema, views and rows into a new file, which must not exist.

    Args:
        connections: of the database.
        to: the new file.
        payloads: whether tokens and texts are copied, or what decides it from their size in bytes. Where they are not,
            a query that asks for one is an error that says so.
        mark: leave a table ``store.snapshot`` in it that says what `Copied` says.
        progress: told the share of the payloads that is copied.

    Raises:
        StoreError: the file cannot be written, or payloads were archived meanwhile; nothing is left of it.
    """
    try:
        with connections.read(strictly=True) as connection:
            count, last, size = sql.rows(connection, "copies", "payloads")[0]
            whole = payloads(size) if callable(payloads) else payloads
            copied = Copied(now(), whole, state_of(connections.path))
            with _attached(connection, to):
                connection.execute("BEGIN TRANSACTION")
                _copy_narrow(connection, keep_payloads=whole)
                if mark:
                    sql.rows(connection, "copies", "mark", **sql.parameters(copied))
                if whole and size <= SLICE_BYTES:
                    sql.rows(connection, "copies", "copy_payloads", first=0, last=last)
                connection.execute("COMMIT")
        if whole and size > SLICE_BYTES:
            _copy_payloads(connections, to, last, size // SLICE_BYTES + 1, progress)
            _check_count(to, count)
        _sync(to)
    except (OSError, duckdb.Error) as error:
        remove_database(to)
        raise StoreError(explain(f"The copy {to} cannot be made", error)) from error
    except BaseException:
        remove_database(to)
        raise
    return copied


def remove_database(path: Path) -> None:
    """Delete a database file and its log, where they are."""
    for file in (path, path.with_name(f"{path.name}.wal")):
        file.unlink(missing_ok=True)


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[None]:
    """Have the file as ``copy``, to write to."""
    quoted = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS copy (READ_WRITE)")
    yield
    connection.execute("CHECKPOINT copy")  # DuckDB does so by itself, but not where a run's instance says no
    connection.execute("DETACH copy")  # not after an error: the connection is closed next, the file removed


def _copy_narrow(connection: duckdb.DuckDBPyConnection, *, keep_payloads: bool) -> None:
    (name,) = connection.execute("SELECT current_database()").fetchall()[0]
    connection.execute(f'COPY FROM DATABASE "{name}" TO copy (SCHEMA)')
    for (table,) in sql.rows(connection, "copies", "tables"):
        if table != "payloads":
            connection.execute(f"INSERT INTO copy.store.{table} FROM store.{table}")
    if not keep_payloads:
        sql.rows(connection, "copies", "without_payloads")


def _copy_payloads(
    connections: Connections, to: Path, last: int, slices: int, progress: Callable[[float], None]
) -> None:
    size = -(-(last + 1) // slices)
    for first in range(0, last + 1, max(1, size)):
        with connections.read(strictly=True) as connection, _attached(connection, to):
            sql.rows(connection, "copies", "copy_payloads", first=first, last=min(first + size - 1, last))
        progress(min(first + size, last + 1) / (last + 1))


def _check_count(to: Path, expected: int) -> None:
    with duckdb.connect(to, read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM store.payloads").fetchall()[0][0]
    if found != expected:
        raise StoreError(
            f"The copy {to} has {found} payloads where the database had {expected}: some were archived meanwhile. "
            "Try again."
        )


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
