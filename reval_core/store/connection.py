"""Short connections to the one database file.

DuckDB lets one process write or many read, never both at once. So nobody keeps a connection: open, do one
transaction, close. A held lock is waited for with jittered back-off; a program that never lets go is named with its
process id when the wait is over. Inside one process a re-entrant lock keeps threads apart, since DuckDB
refuses a read-only and a writing connection to one file in one process.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from reval_core.errors import NotStored, StoreError, StoreLocked

_PROCESS_LOCK = threading.RLock()
_HELD_BY_OTHER = re.compile(r"Could not set lock on file|Conflicting lock is held", re.IGNORECASE)
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")

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

    @contextmanager
    def write(self, wait_s: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, rolled back when the block raises.

        Args:
            wait_s: seconds to wait for another process, by default the connections' own.

        Raises:
            NotStored: the file cannot be opened or written (disk full, for one); nothing of the block is in it.
            StoreError: the database refused what the block wrote; nothing of the block is in it.
        """
        with _PROCESS_LOCK, self._open(read_only=False, wait_s=wait_s) as connection:
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

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One read-only connection; several processes may have one at the same time."""
        if not self.path.exists():
            raise StoreError(f"There is no database at {self.path}. Is REVAL_HOME right? `reval train` creates it.")
        with _PROCESS_LOCK, self._open(read_only=True, wait_s=None) as connection:
            yield connection

    @contextmanager
    def _open(self, *, read_only: bool, wait_s: float | None) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._connect(read_only, self.lock_wait_s if wait_s is None else wait_s)
        try:
            yield connection
        except RuntimeError as error:
            # DuckDB puts this in the place of what a signal's handler raised while a query ran
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        finally:
            connection.close()

    def _connect(self, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + wait_s
        pause = 0.005
        while True:
            try:
                return duckdb.connect(self.path, read_only=read_only, config={"threads": self.threads})
            except duckdb.IOException as error:
                if not _HELD_BY_OTHER.search(str(error)):
                    raise NotStored(_explain(self.path, error)) from error
                if time.monotonic() > deadline:
                    raise StoreLocked(_explain_holder(self.path, wait_s, error)) from error
            except duckdb.SerializationException as error:
                raise NotStored(_explain(self.path, error)) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.6, 0.25)


def _explain_holder(path: Path, waited: float, error: Exception) -> str:
    holder = _HOLDER.search(str(error))
    who = f"process {holder[2]} ({holder[1]})" if holder else "another program"
    return (
        f"The database {path} has been held by {who} for more than {waited:g} s. Close it there and start again; "
        "nothing is lost. To read while a run writes, use `reval sql`, which never keeps the file open."
    )


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    if "version number" in text or "newer version" in text:
        return (
            f"The database {path} was written by a newer DuckDB than {duckdb.__version__}: {text} "
            "Install the DuckDB version of the constraints file that wrote it."
        )
    return f"The database {path} cannot be opened: {text}"
