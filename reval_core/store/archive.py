"""Moves payloads (tokens and texts) from the database into Parquet files beside it, and back, or drops them for good.

Verdicts, scores, statistics and every id stay; what needs a token or a text finds it in the file
(`reval_core.store.payloads`). Work goes in slices, each a file of its own and one short transaction, so that a run can
go on. A slice is written aside, fsynced and renamed before the transaction that removes its rows, which removes only
what the file has to the last token: killed between any two steps, a payload is in the database, in a file, or in both.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reval_core.errors import StoreError
from reval_core.exclusive import announced
from reval_core.identity import digest
from reval_core.store import space
from reval_core.store import statements as sql
from reval_core.store.connection import PAST_THE_LOG
from reval_core.store.migrations import now
from reval_core.store.outside import Choice, Saved, outside
from reval_core.store.payloads import SCHEMA, named
from reval_core.store.spool import fsync_folder

if TYPE_CHECKING:
    from reval_core.store.store import Store

log = logging.getLogger(__name__)

FOLDER = "archive"
SLICE_BYTES = 64_000_000
"""Tokens and text in one file, and so in one transaction, about."""
TOKEN_BYTES = 8
"""Of one response token before compression: four for its id, four for its text."""
GROUP_BYTES = 8_000_000
"""Tokens and text in one row group of a file, about: what is read to find one payload."""

Progress = Callable[[int, int], None]
"""Told how many payloads are done, and of how many."""


@dataclass(frozen=True)
class Moved:
    """What was moved or dropped."""

    payloads: int = 0
    tokens: int = 0
    files: int = 0
    """Parquet files that were written or removed."""
    file_bytes: int = 0
    """Their size."""

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.payloads + other.payloads,
            self.tokens + other.tokens,
            self.files + other.files,
            self.file_bytes + other.file_bytes,
        )


def _quiet(done: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def alone(store: Store, wait_s: float = 0.0) -> Iterator[None]:
    """A block in which no other process archives, drops or prunes.

    Raises:
        StoreError: another one still does when the wait is over.
    """
    with announced(store.path.with_name("retention.lock"), time.monotonic() + wait_s) as is_alone:
        if not is_alone:
            raise StoreError("Another process archives, prunes or backs up this root. Try again when it has ended.")
        yield


def in_database(found: pa.Table) -> pa.Table:
    """Those of the payloads that lie in the database."""
    return found.filter(found.column("archive_id").is_null())


def archive(store: Store, found: pa.Table, progress: Progress = _quiet) -> Moved:
    """Move payloads to Parquet files.

    Args:
        store: whose.
        found: what no run needs (`outside`), as it was when that was asked; it may have grown since.
        progress: told how far it is.

    Raises:
        StoreError: the disk has no room for a slice, or a file does not hold what was written; what was moved before
            stays moved.
    """
    folder = store.path.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    sweep(store)
    moved, total = Moved(), len(in_database(found))
    for piece in _slices(in_database(found)):
        moved += _move(store, folder, piece)
        progress(moved.payloads, total)
    return moved


def _slices(found: pa.Table) -> Iterator[pa.Table]:
    """The payloads in pieces of about `SLICE_BYTES`, order kept."""
    ends = np.cumsum(found.column("tokens").to_numpy()) * TOKEN_BYTES
    start = 0
    while start < found.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + SLICE_BYTES, side="right")))
        yield found.slice(start, stop - start)
        start = stop


def _move(store: Store, folder: Path, piece: pa.Table) -> Moved:
    names = piece.column("trajectory_id").to_pylist()
    with store.read() as connection:
        table = sql.table(connection, "archive", "payloads", {"wanted": named(names)}).cast(SCHEMA)
    if table.num_rows != piece.num_rows:
        raise StoreError(f"{piece.num_rows - table.num_rows} payloads are not where they were. Archive again.")
    space.require(folder, table.nbytes, f"An archive of {table.num_rows:,} responses")
    archive_id = digest("arc", sorted(names))
    path = folder / f"{archive_id}.parquet"
    write(path, table)
    with store.write() as connection:
        _record(connection, archive_id, path, table.num_rows)
    return Moved(table.num_rows, sum(piece.column("tokens").to_pylist()), 1, path.stat().st_size)


def write(path: Path, table: pa.Table) -> None:
    """Write payloads as a Parquet file that is whole and on the disk once it has its name.

    Raises:
        StoreError: the disk takes nothing more; no half file is left.
    """
    aside = path.with_suffix(".tmp")
    rows = max(1, table.num_rows * GROUP_BYTES // max(1, table.nbytes))
    try:
        with open(aside, "wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=rows)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"The archive {path} cannot be written: {error}. Its rows stay in the database.") from error
    finally:
        aside.unlink(missing_ok=True)


def _record(connection: duckdb.DuckDBPyConnection, archive_id: str, path: Path, count: int) -> None:
    """Remove from the database what the file has, and note where it is; inside the caller's transaction.

    Raises:
        StoreError: the file, read back, is not what the database has.
    """
    at = {"archive_id": archive_id, "file": str(path)}
    try:
        removed = sql.rows(connection, "archive", "remove_moved", file=str(path))[0][0]
        known = sql.rows(connection, "archive", "add_moved", **at, recorded_at=now())[0][0]
    except duckdb.Error as error:
        raise StoreError(f"The archive {path} cannot be recorded: {error}. Its rows stay in the database.") from error
    if not removed == known == count:
        raise StoreError(
            f"The archive {path} has {known} payloads, of which {removed} are as in the database; {count} were to be "
            "moved. They stay in the database; archive again, and check the disk."
        )
    sql.rows(
        connection,
        "archive",
        "add_archive",
        archive_id=archive_id,
        path=f"{FOLDER}/{path.name}",
        payloads=count,
        bytes=path.stat().st_size,
        created_at=now(),
    )


def drop(store: Store, saved: Saved, choice: Choice) -> Moved:
    """Remove for good the payloads that no run needs, those in archives too where a whole file is needed no more.

    One transaction decides and removes, so that a run that goes on meanwhile loses nothing that it needs.
    """
    with store.write() as connection:
        found = droppable(connection, outside(connection, saved, choice))
        wanted = {"wanted": found.select(["trajectory_id"])}
        files = [row for row in sql.records(connection, "archive", "archives") if row["archive_id"] in _ids(found)]
        sql.rows(connection, "archive", "remove_payloads", wanted)
        sql.rows(connection, "archive", "add_dropped", wanted, recorded_at=now())
        for row in files:
            sql.rows(connection, "archive", "remove_archive", archive_id=row["archive_id"])
    for row in files:
        (store.path.parent / row["path"]).unlink(missing_ok=True)
    tokens = sum(found.column("tokens").to_pylist())
    return Moved(found.num_rows, tokens, len(files), sum(row["bytes"] for row in files))


def droppable(connection: duckdb.DuckDBPyConnection, found: pa.Table) -> pa.Table:
    """What `drop` removes of the payloads that no run needs: of an archive all or none."""
    needless = found.column("archive_id").value_counts().to_pylist()
    whole = {row["archive_id"]: row["payloads"] for row in sql.records(connection, "archive", "archives")}
    gone = [row["values"] for row in needless if row["values"] and whole.get(row["values"]) == row["counts"]]
    keep = pa.array([name is None or name in gone for name in found.column("archive_id").to_pylist()], pa.bool_())
    return found.filter(keep)


def _ids(found: pa.Table) -> set[str]:
    return {name for name in found.column("archive_id").unique().to_pylist() if name is not None}


def bring_back(store: Store, run_id: str | None = None, progress: Progress = _quiet) -> Moved:
    """Put archived payloads back into the database; a file that holds no other is removed.

    Args:
        store: whose.
        run_id: of the rounds of this run's chain only; None: all.
        progress: told how far it is.

    Raises:
        StoreError: a file is gone or damaged, or the disk has no room; what was brought back before stays.
    """
    with store.read() as connection:
        archives = sql.records(connection, "archive", "archives")
        wanted = [archived_payloads(connection, run_id, row["archive_id"]) for row in archives]
    moved, total = Moved(), sum(one.num_rows for one in wanted)
    for row, names in zip(archives, wanted, strict=True):
        if names.num_rows:
            moved += _return(store, row["archive_id"], store.path.parent / row["path"], names, row["payloads"])
            progress(moved.payloads, total)
    sweep(store)
    return moved


def archived_payloads(
    connection: duckdb.DuckDBPyConnection, run_id: str | None = None, archive_id: str | None = None
) -> pa.Table:
    """Table (trajectory_id, tokens) of what lies in archives, or in one; of the rounds of a run's chain, or of all."""
    return sql.table(connection, "archive", "archived_of", archive_id=archive_id, run_id=run_id)


def _return(store: Store, archive_id: str, path: Path, names: pa.Table, held: int) -> Moved:
    if not path.is_file():
        raise StoreError(f"The archive {path} is gone. Put it back from a backup; it belongs to the database.")
    tokens, empty = sum(names.column("tokens").to_pylist()), names.num_rows == held
    space.require(path.parent, tokens * TOKEN_BYTES, f"Bringing {names.num_rows:,} responses back")
    size, wanted = path.stat().st_size, {"wanted": names.select(["trajectory_id"])}
    with store.write() as connection:
        connection.execute(PAST_THE_LOG)
        try:
            back = sql.rows(connection, "archive", "bring_back", wanted, file=str(path))[0][0]
        except duckdb.Error as error:
            raise StoreError(f"The archive {path} cannot be read: {error}. Put it back from a backup.") from error
        if back != names.num_rows:
            raise StoreError(f"The archive {path} has {back} of {names.num_rows} payloads. Put it back from a backup.")
        sql.rows(connection, "archive", "forget_archived", wanted)
        if empty:
            sql.rows(connection, "archive", "remove_archive", archive_id=archive_id)
    if empty:
        path.unlink()
    return Moved(names.num_rows, tokens, int(empty), size if empty else 0)


def sweep(store: Store) -> None:
    """Remove what killed attempts left: half-written files, and unrecorded ones whose payloads are elsewhere."""
    folder = store.path.parent / FOLDER
    for half in folder.glob("*.tmp"):
        half.unlink()
    with store.read() as connection:
        known = {row["path"] for row in sql.records(connection, "archive", "archives")}
        left = [path for path in sorted(folder.glob("*.parquet")) if f"{FOLDER}/{path.name}" not in known]
        for path in left:
            try:
                alone_in = sql.rows(connection, "archive", "not_elsewhere", file=str(path))[0][0]
            except duckdb.Error as error:
                log.warning("%s belongs to no archive of this database and cannot be read (%s); it stays", path, error)
                continue
            if alone_in:
                log.warning("%s belongs to no archive of this database but has what it lacks; it stays", path)
            else:
                path.unlink()


def lost(connection: duckdb.DuckDBPyConnection, folder: Path, dropping: pa.Table | None = None) -> set[str]:
    """Policies that cannot be learned again, since a payload was dropped or its archive is gone.

    Args:
        connection: of a read.
        folder: of the database.
        dropping: further payloads that are about to be dropped, a table with trajectory_id.
    """
    archives = sql.records(connection, "archive", "archives")
    gone = [row["archive_id"] for row in archives if not (folder / row["path"]).is_file()]
    tables = {
        "gone": pa.table({"archive_id": pa.array(gone, pa.string())}),
        "dropping": named([]) if dropping is None else dropping.select(["trajectory_id"]),
    }
    return {row[0] for row in sql.rows(connection, "archive", "lost", tables)}
