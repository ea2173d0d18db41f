"""Payloads (tokens and texts) that are not in the database: read from the archives beside it.

Which trajectory lies in which Parquet file stands in ``store.archived_payloads``; paths are relative to the database's
folder, so a root that is copied elsewhere finds them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.store import statements as sql

SCHEMA = pa.schema(
    [("trajectory_id", pa.string()), ("response_ids", pa.list_(pa.int32())), ("completion", pa.string())]
)
"""Columns of ``store.payloads`` and of an archive."""


def named(trajectory_ids: Sequence[str]) -> pa.Table:
    """The ids as a table for a statement, each once."""
    return pa.table({"trajectory_id": pa.array(sorted(set(trajectory_ids)), pa.string())})


def folder_of(connection: duckdb.DuckDBPyConnection) -> Path:
    """The folder of the database, or of the snapshot beside it."""
    return Path(sql.rows(connection, "archive", "folder")[0][0]).parent


def archived(connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str]) -> pa.Table:
    """The payloads of trajectories that have none in the database, from its archives; a table of `SCHEMA`.

    Raises:
        StoreError: one was dropped, its archive is gone or damaged, or nobody knows of it.
    """
    if not trajectory_ids:
        return SCHEMA.empty_table()
    wanted = named(trajectory_ids)
    places = {name: place for name, *place in sql.rows(connection, "archive", "whereabouts", {"wanted": wanted})}
    _refuse_lost(wanted.column("trajectory_id").to_pylist(), places)
    folder = folder_of(connection)
    files = sorted({str(folder / path) for _, path, _ in places.values()})
    gone = [file for file in files if not Path(file).is_file()]
    if gone:
        raise StoreError(
            f"{len(trajectory_ids)} trajectories were archived, and {len(gone)} of their files are gone, the first is "
            f"{gone[0]}. Put it back from a backup: it lies beside the database and belongs to it."
        )
    try:
        found = sql.table(connection, "archive", "archived", {"wanted": wanted}, files=files)
    except duckdb.Error as error:
        raise StoreError(f"An archive of {folder / 'archive'} cannot be read: {error}") from error
    if found.num_rows != wanted.num_rows:
        raise StoreError(
            f"{wanted.num_rows - found.num_rows} of {wanted.num_rows} archived trajectories are not in their files "
            f"({', '.join(files)}). Put the files back from a backup."
        )
    return found


def archived_texts(connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str]) -> dict[str, str]:
    """Text by trajectory, as `archived`."""
    found = archived(connection, trajectory_ids)
    return dict(zip(found.column("trajectory_id").to_pylist(), found.column("completion").to_pylist(), strict=True))


def _refuse_lost(names: Sequence[str], places: dict[str, list[object]]) -> None:
    dropped = [name for name in names if name in places and places[name][0] is None]
    if dropped:
        raise StoreError(
            f"{len(dropped)} trajectories have no payload in the store: their tokens and texts were dropped for good, "
            f"the first is {dropped[0]}, on {places[dropped[0]][2]:%Y-%m-%d}. What was learned from them can only be "
            "had from a saved policy: the view policies says which have a folder."
        )
    unknown = [name for name in names if name not in places]
    if unknown:
        raise StoreError(
            f"{len(unknown)} trajectories have no payload in the store, the first is {unknown[0]}, and nothing says "
            "that it was archived or dropped. Restore the database from a backup."
        )
