"""Rewrites the database into a fresh file, so that it gives back the space of what was deleted.

    copy aside -> read every row of both and compare -> rename over the old file

The old file is whole until the rename, the new one from then on: a kill at any moment leaves one of them under the
database's name, and the next start removes what lies aside. Nobody writes meanwhile: DuckDB's lock on the old file is
kept until the new one has its name. DuckDB's log is empty when the copy begins and stays so: a log of the old file must
never lie beside the new one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from reval_core.errors import StoreError
from reval_core.exclusive import exclusive
from reval_core.store import contents, space
from reval_core.store import statements as sql
from reval_core.store.connection import Connections, explain
from reval_core.store.copies import remove_database
from reval_core.store.files import sync

_POLL_S = 2.0


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum did."""

    bytes_before: int
    bytes_after: int
    rows: int
    """Of all tables together."""


def vacuum(connections: Connections, *, wait: bool = False, say: Callable[[str], None] = lambda text: None) -> Vacuumed:
    """Rewrite the database.

    Args:
        connections: of the database.
        wait: wait until nobody works on a run, instead of refusing.
        say: told whom is waited for.

    Raises:
        StoreError: a run is being worked on, the disk has no room, or the copy differs; the database is as it was.
    """
    with connections.read():  # that there is one
        path = connections.path.resolve()  # a link to another disk stays one
    said: list[str] = []
    while True:
        try:
            with exclusive(connections.path.with_suffix(".lock")):  # no start removes our copy, none begins a run
                remove_leftover(path)
                found = _unless_at_work(connections, path)
        except OSError as error:
            raise StoreError(explain(f"The database {path} cannot be rewritten", error)) from error
        if isinstance(found, Vacuumed):
            return found
        if not wait:
            raise StoreError(
                f"The database is in use: {'; '.join(found)}. Its commits would wait for as long as the vacuum takes. "
                "Wait until it ends, or give --wait."
            )
        if found != said:
            say(f"waiting until nobody works on a run: {'; '.join(found)}")
            said = found
        time.sleep(_POLL_S)


def remove_leftover(database: Path) -> None:
    """Remove what a killed vacuum left."""
    remove_database(_aside(database.resolve()))


def _unless_at_work(connections: Connections, path: Path) -> Vacuumed | list[str]:
    """Rewrite the database, or say who works on a run."""
    aside = _aside(path)
    try:
        # the transaction stays empty; its connection keeps everybody out until the new file has its name
        with connections.write() as held, closing(held.cursor()) as connection:
            if found := contents.at_work(connection):
                return found
            connection.execute("CHECKPOINT")
            before = path.stat().st_size
            block_size, used, _ = sql.rows(connection, "maintenance", "size")[0]
            space.require(path.parent, block_size * used, "The rewritten database")
            digests = _rewrite(connection, aside)
            _compare(aside, digests)
            shutil.copymode(path, aside)
            sync(aside)
            aside.rename(path)
            sync(path.parent)
    finally:
        remove_database(aside)
    return Vacuumed(before, path.stat().st_size, sum(rows for rows, _ in digests.values()))


def _aside(path: Path) -> Path:
    return path.with_suffix(".vacuum")


def _rewrite(connection: duckdb.DuckDBPyConnection, aside: Path) -> dict[str, tuple[int, int]]:
    """Copy everything in its order into a new file; gives rows and digest of each table of the old one."""
    quoted = str(aside).replace("'", "''")
    (name,) = connection.execute("SELECT current_database()").fetchall()[0]
    try:
        digests = contents.row_digests(connection)
        connection.execute(f"ATTACH '{quoted}' AS copy (READ_WRITE)")
        connection.execute(f'COPY FROM DATABASE "{name}" TO copy')
        connection.execute("CHECKPOINT copy")  # else its rows would be left in a log
        connection.execute("DETACH copy")
    except duckdb.Error as error:
        raise StoreError(explain(f"The database cannot be rewritten into {aside}; it is as it was", error)) from error
    return digests


def _compare(aside: Path, digests: dict[str, tuple[int, int]]) -> None:
    """Hold the new file against the old one's rows and digests, and its views and payloads against each other.

    Raises:
        StoreError: it has other rows, or a log of its own.
    """
    if aside.with_name(f"{aside.name}.wal").exists():
        raise StoreError(f"DuckDB left a log beside the rewritten database {aside}; the old one stays.")
    contents.check(aside, {name: rows for name, (rows, _) in digests.items()})
    with duckdb.connect(aside, read_only=True) as connection:
        found = contents.row_digests(connection)
    differing = [name for name in digests if found[name] != digests[name]]
    if differing:
        raise StoreError(f"The rewritten database has other rows in {', '.join(differing)}; the old one stays.")
