"""Takes the store of one root into that of another by id: runs of several roots stand side by side and can be queried.

Content is named by what it is, so what two roots have both stands once; a run is named by its settings, and runs of
different names never meet. Whoever wrote a row first keeps it.

    cells/RUN/reval.duckdb, cells/OTHER/reval.duckdb, ... -> reval.duckdb
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from reval_core.errors import StoreError
from reval_core.store import statements as sql
from reval_core.store.sqlfiles import statement

OWN = ("policies", "attempts", "stages", "payloads", "update_trajectories", "events")
"""Statements of their own: tables with paths, and tables without a key."""


def merge(connection: duckdb.DuckDBPyConnection, database: Path, under: str) -> None:
    """Take in every row of another database; doing it twice changes nothing.

    Args:
        connection: in a writing transaction, and closed after it: the other database stays attached until then.
        database: the other file, to which nobody writes; both have the schema of this version.
        under: folder of the other root, relative to this one; paths of its rows then lie there.

    Raises:
        StoreError: the other store has payloads in archive files, which are not rows.
    """
    quoted = str(database).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS other (READ_ONLY)")  # nothing can be detached within a transaction
    ((archived,),) = sql.rows(connection, "merging", "archived")
    if archived:
        raise StoreError(
            f"The store in {under} has {archived} payloads in archive files. Bring them back first: "
            f"REVAL_HOME={under} reval store archive --bring-back"
        )
    for (table,) in sql.rows(connection, "merging", "tables"):
        connection.execute(
            f"INSERT INTO store.{table} BY NAME SELECT * FROM other.store.{table} ON CONFLICT DO NOTHING"
        )
    for name in OWN:
        needs_path = "$under" in statement("merging", name)
        sql.rows(connection, "merging", name, **({"under": under} if needs_path else {}))
