"""Short connections to the one database file.

DuckDB lets one process write or many read, never both at once. So nobody keeps a connection: open, do one
transaction, close. A held lock is waited for with jittered back-off; a program that never lets go is named with its
process id when the wait is over. A writer announces itself, and readers let it go first: many short readers would
otherwise never leave it a gap. Inside one process a re-entrant lock keeps threads apart, since DuckDB refuses a
read-only and a writing connection to one file in one process.

When DuckDB checkpoints (moves what the write-ahead log holds into the database) is decided here, not left to the
closing of a connection: it merges small row groups then, and so rewrites gigabytes of payload now and then.

- A small transaction leaves its rows in the log, which costs nobody anything: at 16 MB DuckDB moves it by itself.
- One with payloads goes straight into the database and not through the log, in a row group of its own.
- `settle` moves the rest and merges, between stages, where that is cheap.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from reval_core.errors import NotStored, StoreError, StoreLocked
from reval_core.exclusive import announced, wait_while_announced

log = logging.getLogger(__name__)

_PROCESS_LOCK = threading.RLock()
_HELD_BY_OTHER = re.compile(r"Could not set lock on file|Conflicting lock is held", re.IGNORECASE)
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")
_SAY_AFTER_S = 5.0
"""Seconds after which somebody who waits for another program says so."""

LEAVE_IN_LOG = "PRAGMA disable_checkpoint_on_shutdown"
DO_NOT_MERGE = "SET max_vacuum_tasks = 0"
PAST_THE_LOG = "SET wal_autocheckpoint = '1KB'"

NOT_WRITTEN = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.FatalException,
    duckdb.OutOfMemoryException,
)
"""What DuckDB raises when a transaction cannot reach the disk; the connection is of no use afterwards."""


class Connections:
    """Opens short connections to one file.

    Args:
        path: the database file; created by the first writing connection.
        lock_wait_s: seconds to wait for another process before `StoreLocked`.
        threads: DuckDB's worker threads.
    """

    def __init__(self, path: Path, *, lock_wait_s: float = 600.0, threads: int = 2) -> None:
        self.path = path
        self.lock_wait_s = lock_wait_s
        self.threads = threads
        self._writing = path.with_suffix(".writing")

    @contextmanager
    def write(self, wait_s: float | None = None, *, payloads: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, rolled back when the block raises.

        Args:
            wait_s: seconds to wait for another process, by default the connections' own.
            payloads: the block writes megabytes, which need not go through the log.

        Raises:
            NotStored: the file cannot be opened or written (disk full, for one); nothing of the block is in it.
            StoreError: the database refused what the block wrote; nothing of the block is in it.
        """
        with self._alone(wait_s) as connection:
            for setting in (LEAVE_IN_LOG, DO_NOT_MERGE, *((PAST_THE_LOG,) if payloads else ())):
                connection.execute(setting)
            try:
                connection.execute("BEGIN TRANSACTION")
                yield connection
                connection.execute("COMMIT")
            except NOT_WRITTEN as error:
                raise NotStored(f"The database {self.path} could not be written: {error}") from error
            except duckdb.Error as error:
                connection.execute("ROLLBACK")
                raise StoreError(f"The database {self.path} refused the rows: {error}") from error
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def settle(self, *, merge: bool, wait_s: float | None = None) -> None:
        """Move what the log holds into the database file.

        Args:
            merge: also merge small row groups, which rewrites what they hold.
            wait_s: seconds to wait for another process, by default the connections' own.

        Raises:
            NotStored: the file cannot be opened or written; everything committed is still in file and log.
        """
        with self._alone(wait_s) as connection:
            try:
                if not merge:
                    connection.execute(DO_NOT_MERGE)
                connection.execute(LEAVE_IN_LOG)
                connection.execute("CHECKPOINT")
            except NOT_WRITTEN as error:
                raise NotStored(f"The database {self.path} could not be written: {error}") from error

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One read-only connection; several processes may have one at the same time."""
        if not self.path.exists():
            raise StoreError(f"There is no database at {self.path}. Is REVAL_HOME right? `reval train` creates it.")
        deadline = time.monotonic() + self.lock_wait_s
        with _PROCESS_LOCK:
            wait_while_announced(self._writing, deadline)
            with self._closed_at_the_end(self._connect(True, self.lock_wait_s, deadline)) as connection:
                yield connection

    @contextmanager
    def _alone(self, wait_s: float | None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A writing connection. Others see that it is wanted, so that readers let it go first."""
        wait_s = self.lock_wait_s if wait_s is None else wait_s
        deadline = time.monotonic() + wait_s
        with _PROCESS_LOCK, ExitStack() as stack:
            try:
                stack.enter_context(announced(self._writing, deadline))
            except OSError as error:
                raise NotStored(f"The folder of {self.path} cannot be written: {error}") from error
            connection = self._connect(False, wait_s, deadline)
            yield stack.enter_context(self._closed_at_the_end(connection))

    @contextmanager
    def _closed_at_the_end(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            yield connection
        except RuntimeError as error:
            # DuckDB puts this in the place of what a signal's handler raised while a query ran
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        finally:
            connection.close()

    def _connect(self, read_only: bool, wait_s: float, deadline: float) -> duckdb.DuckDBPyConnection:
        pause, said = 0.005, False
        while True:
            try:
                return duckdb.connect(self.path, read_only=read_only, config={"threads": self.threads})
            except duckdb.IOException as error:
                if not _HELD_BY_OTHER.search(str(error)):
                    raise NotStored(_explain(self.path, error)) from error
                left = deadline - time.monotonic()
                if left < 0:
                    raise StoreLocked(_explain_holder(self.path, wait_s, error)) from error
                if not said and left < wait_s - _SAY_AFTER_S:
                    log.warning("waiting for %s, which has %s open", _holder(error), self.path)
                    said = True
            except duckdb.SerializationException as error:
                raise NotStored(_explain(self.path, error)) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.6, 0.25)


def _holder(error: Exception) -> str:
    holder = _HOLDER.search(str(error))
    return f"process {holder[2]} ({holder[1]})" if holder else "another program"


def _explain_holder(path: Path, waited: float, error: Exception) -> str:
    return (
        f"The database {path} has been held by {_holder(error)} for more than {waited:g} s. Close it there and start "
        f"again; nothing is lost. To read while a run writes, use `reval sql`, which never keeps the file open, or "
        f"open {path.with_name('snapshot.duckdb').name} beside it, which the run keeps fresh."
    )


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    if "version number" in text or "newer version" in text:
        return (
            f"The database {path} was written by a newer DuckDB than {duckdb.__version__}: {text} "
            "Install the DuckDB version of the constraints file that wrote it."
        )
    return f"The database {path} cannot be opened: {text}"
