"""One DuckDB instance for many short blocks: the file is attached to it for the time of a block, and a moment longer.

To make an instance takes DuckDB several times as long as to open a file in it, and to open the file, with its log to
read, as long as most of what a block then does. A round of training opens its file some thirty times, most of them one
right behind the other. So a block that ends leaves the file attached, and the next one finds it; after `LINGER_S`
without one it is let go, and after `HOLD_S` in any case. ATTACH takes the lock on the file, DETACH gives it back.
After an error the instance is dropped, and with it all that the block may have left in it.
"""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

LINGER_S = 0.25
"""Seconds that the file stays attached behind a block, where nobody has announced himself. To attach it again takes as
long as to read its log again: 20 ms and more."""
HOLD_S = 1.0
"""Seconds after which it does not stay attached behind one, whatever comes: not everybody announces himself."""
LEAVE_IN_LOG = "PRAGMA disable_checkpoint_on_shutdown"
DEFAULTS = "RESET max_vacuum_tasks; RESET wal_autocheckpoint"
"""Settings that blocks change, as a new instance has them: else they would hold for the next block."""
NAME = "reval"
"""Of the file in the instance, whatever it is called."""


class Instance:
    """DuckDB for one file. Callers see to it that one thread at a time is in here.

    Args:
        path: the database file.
        threads: DuckDB's worker threads.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._root: duckdb.DuckDBPyConnection | None = None
        self._blocks = 0  # that have the file attached, one inside the other
        self._reads = False  # the outermost of them
        self._mode: str | None = None  # in which the file is attached; None: it is not
        self._attached_at = self._left_at = 0.0  # by the monotonic clock

    def open(self, *, read_only: bool, strictly: bool = False) -> duckdb.DuckDBPyConnection:
        """A connection in which the file is the default database: to be closed by the caller, and then `leave`.

        Args:
            read_only: it is to read.
            strictly: the file is attached read-only, else it may be the transaction alone that is.

        Raises:
            duckdb.Error: it cannot be opened, or an outer block has it only to read.
        """
        if self._root is None:
            self._root = duckdb.connect(":memory:", config={"threads": self._threads})
            self._root.execute(LEAVE_IN_LOG)
        if not self._blocks:
            self._root.execute(DEFAULTS)
            self._attach("READ_ONLY" if read_only else "READ_WRITE", exactly=strictly or not read_only)
            self._reads = read_only
        elif self._reads and not read_only:
            raise duckdb.ConnectionException("a block that reads it is open in this process, and this one writes")
        connection = self._root.cursor()
        connection.execute(f"USE {NAME}")
        if read_only and self._mode == "READ_WRITE":
            connection.execute("BEGIN TRANSACTION READ ONLY")
        self._blocks += 1
        return connection

    def _attach(self, mode: str, *, exactly: bool) -> None:
        if self._mode is not None and exactly and self._mode != mode:
            self.let_go()
        if self._mode is None:
            assert self._root is not None
            quoted = str(self._path).replace("'", "''")
            self._root.execute(f"ATTACH '{quoted}' AS {NAME} ({mode})")
            self._mode, self._attached_at = mode, time.monotonic()

    def leave(self) -> None:
        """End a block; behind the last one the file stays attached for a moment."""
        self._blocks = max(0, self._blocks - 1)  # an inner block may have dropped everything
        self._left_at = time.monotonic()
        if self._left_at - self._attached_at > HOLD_S:
            self.let_go()

    def lingers_s(self) -> float | None:
        """Seconds that the file is to stay attached yet, at most 0 when it is time; None: it is not, or in use."""
        if self._mode is None or self._blocks:
            return None
        return self._left_at + LINGER_S - time.monotonic()

    def let_go(self) -> None:
        """Give the file back where no block has it."""
        if self._mode is not None and not self._blocks:
            assert self._root is not None
            self._root.execute(f"DETACH {NAME}")
            self._mode = None

    def drop(self) -> None:
        """Close everything; the next block begins with a new instance."""
        root, self._root, self._blocks, self._mode = self._root, None, 0, None
        if root is not None:
            root.close()
