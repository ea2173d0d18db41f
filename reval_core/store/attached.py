"""One DuckDB instance for many short blocks: the file is attached to it for the time of a block.

To make an instance takes DuckDB several times as long as to open a file in it, and a round of training opens its file
some thirty times. The file is held no longer than by a connection of its own: ATTACH takes the lock on it, DETACH gives
it back. After an error the instance is dropped, and with it all that the block may have left in it.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

DEFAULTS = "PRAGMA enable_checkpoint_on_shutdown; RESET max_vacuum_tasks; RESET wal_autocheckpoint"
"""Settings that blocks change, as a new instance has them: else they would hold for the next block."""
NAME = "reval"
"""Of the file in the instance, whatever it is called."""


class Instance:
    """DuckDB for one file. Callers see to it that one thread at a time is in here.

    Args:
        path: the database file.
        threads: DuckDB's worker threads.
        keep: hold the file between blocks as well, until the instance is dropped.
    """

    def __init__(self, path: Path, threads: int, *, keep: bool = False) -> None:
        self._path, self._threads, self._keep = path, threads, keep
        self._attached = False
        self._root: duckdb.DuckDBPyConnection | None = None
        self._blocks = 0  # that have the file attached, one inside the other
        self._read_only = True

    def open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """A connection in which the file is the default database: to be closed by the caller, and then `leave`.

        Raises:
            duckdb.Error: it cannot be opened, or an outer block has it only to read.
        """
        if self._root is None:
            self._root = duckdb.connect(":memory:", config={"threads": self._threads})
        if not self._blocks:
            self._root.execute(DEFAULTS)
            self._attach(self._root, read_only=read_only and not self._keep)
        elif self._read_only and not read_only:
            raise duckdb.ConnectionException("a block that reads it is open in this process, and this one writes")
        connection = self._root.cursor()
        connection.execute(f"USE {NAME}")
        self._blocks += 1
        return connection

    def _attach(self, root: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        if self._attached:
            return
        quoted, mode = str(self._path).replace("'", "''"), "READ_ONLY" if read_only else "READ_WRITE"
        root.execute(f"ATTACH '{quoted}' AS {NAME} ({mode})")
        self._attached, self._read_only = True, read_only

    def leave(self) -> None:
        """End a block; the last one lets the file go, unless it is kept.

        Raises:
            duckdb.Error: what is left to be written could not be written.
        """
        self._blocks = max(0, self._blocks - 1)  # an inner block may have dropped everything
        if self._root is not None and not self._blocks and not self._keep:
            self._root.execute(f"DETACH {NAME}")
            self._attached = False

    def drop(self) -> None:
        """Close everything; the next block begins with a new instance."""
        root, self._root, self._blocks, self._attached = self._root, None, 0, False
        if root is not None:
            root.close()
