"""Short connections to the one database file.

DuckDB lets one process write or many read, never both at once. So nobody keeps a connection: open, do one
transaction, close. A held lock is waited for with jittered back-off; a program that never lets go is named with its
process id when the wait is over. A writer announces itself, and readers let it go first: many short readers would
otherwise never leave it a gap. So does a reader who found the file held, since a busy run leaves gaps as short. A run,
which opens often, does so in one instance of DuckDB (`one_instance`), where the file lingers for a moment behind each
block. Inside one process a re-entrant lock keeps threads apart, since DuckDB refuses a read-only and a writing
connection to one file in one process.

When DuckDB checkpoints (moves what the write-ahead log holds into the database) is decided here, not left to the
closing of a connection: it merges small row groups then, and so rewrites gigabytes of payload now and then.

- A small transaction leaves its rows in the log, which costs nobody anything: at 16 MB DuckDB moves it by itself.
- One with payloads goes straight into the database and not through the log, in a row group of its own.
- `settle` moves the rest and merges, between stages, where that is cheap.

A kill may tear the last transaction off the log; nobody was told that it is stored, and DuckDB drops it at the next
opening. It does so with whatever follows a torn place, so database and log are only ever copied together; a log that it
would drop as a whole is refused here.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb

from reval_core.errors import NotStored, StoreError, StoreLocked
from reval_core.exclusive import announced, wait_while_announced
from reval_core.store.attached import LEAVE_IN_LOG, Instance

log = logging.getLogger(__name__)

_PROCESS_LOCK = threading.RLock()
_HELD_BY_OTHER = re.compile(r"Could not set lock on file|Conflicting lock is held", re.IGNORECASE)
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")
_SAY_AFTER_S = 5.0
"""Seconds after which somebody who waits for another program says so."""
_LINGERING: list[Connections] = []
"""Those of this process in whose instance the file may be attached with no block open."""

DO_NOT_MERGE = "SET max_vacuum_tasks = 0"
PAST_THE_LOG = "SET wal_autocheckpoint = '1KB'"

NOT_WRITTEN = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.FatalException,
    duckdb.OutOfMemoryException,
)
"""What DuckDB raises when a transaction cannot reach the disk; the connection is of no use afterwards."""

_LOG_BEGINS = b"d\x00b"
"""First bytes of every log: the field of an entry's kind, and the kind that tells the version."""
_ADVICE = (
    (
        re.compile(r"No space left|File too large|quota", re.IGNORECASE),
        "Free disk space and start again; what was committed is kept.",
    ),
    (
        re.compile(r"Permission denied|Read-only file system|Operation not permitted", re.IGNORECASE),
        "See that this user may read and write the file, its log and their folder.",
    ),
    (
        re.compile(r"newer version|version number", re.IGNORECASE),
        f"A newer DuckDB than {duckdb.__version__} wrote it: install that one (see constraints/).",
    ),
    (re.compile(r"Is a directory", re.IGNORECASE), "Move the folder away that stands where the database belongs."),
    (
        re.compile(r"corrupt|no log|not a valid DuckDB|not read enough bytes|replaying WAL|This WAL", re.IGNORECASE),
        "Nothing was changed. Keep the file and its log (.wal) as they are: move the root away and bring a backup in "
        "its place with `reval store restore`.",
    ),
)
"""What to do about an error, by its text; the first that fits."""


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
        self._instance: Instance | None = None
        self._left = threading.Condition(_PROCESS_LOCK)  # told whenever a block ends
        self._outermost = True  # the next block, while none is open

    @contextmanager
    def one_instance(self) -> Iterator[None]:
        """Within the block connections are made in one instance of DuckDB, which takes a fraction of the time.

        For who opens often. What SQL of others may leave in an instance (settings, attached files) would stay in it.
        """
        assert self._instance is None
        self._instance = Instance(self.path, self.threads)
        lingering = threading.Thread(target=self._let_go_in_time, name="reval: lets the database go", daemon=True)
        lingering.start()
        _LINGERING.append(self)
        try:
            yield
        finally:
            with self._left:
                instance, self._instance = self._instance, None
                _LINGERING.remove(self)
                instance.drop()
                self._left.notify()
            lingering.join()

    def _let_go_in_time(self) -> None:
        with self._left:  # so no block is open but while this waits
            while self._instance is not None:
                lingers_s = self._instance.lingers_s()
                if lingers_s is not None and lingers_s <= 0:
                    self._let_go()
                    lingers_s = None
                self._left.wait(lingers_s)

    def _let_go(self) -> None:
        """Give the file back, where no block has it."""
        if self._instance is None:
            return
        try:
            self._instance.let_go()
        except duckdb.Error as error:
            log.warning("%s did not close: %s", self.path, error)
            self._instance.drop()

    @contextmanager
    def write(self, wait_s: float | None = None, *, payloads: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, rolled back when the block raises.

        Args:
            wait_s: seconds to wait for another process, by default the connections' own.
            payloads: the block writes megabytes, which need not go through the log.

        Raises:
            NotStored: the file cannot be opened or written (disk full, for one). Whoever is not told that his rows are
                stored writes them again: where moving the log failed after the commit, they are there already.
            StoreError: the database refused what the block wrote; nothing of the block is in it.
        """
        with self._alone(wait_s) as connection:
            for setting in (LEAVE_IN_LOG, DO_NOT_MERGE, *((PAST_THE_LOG,) if payloads else ())):
                connection.execute(setting)
            try:
                connection.execute("BEGIN TRANSACTION")
                yield connection
                connection.execute("COMMIT")
            except duckdb.Error as error:  # closing the connection takes the transaction back
                if not file_at_fault(error):
                    raise StoreError(f"The database {self.path} refused the rows: {error}") from error
                raise NotStored(explain(f"The database {self.path} could not be written", error)) from error

    def settle(self, *, merge: Callable[[duckdb.DuckDBPyConnection], bool], wait_s: float | None = None) -> None:
        """Move what the log holds into the database file.

        Args:
            merge: whether to merge small row groups, too, which rewrites what they hold.
            wait_s: seconds to wait for another process, by default the connections' own.

        Raises:
            NotStored: the file cannot be opened or written; everything committed is still in file and log.
        """
        with self._alone(wait_s) as connection:
            try:
                if not merge(connection):
                    connection.execute(DO_NOT_MERGE)
                connection.execute(LEAVE_IN_LOG)
                connection.execute("CHECKPOINT")
            except duckdb.Error as error:
                raise NotStored(explain(f"The database {self.path} could not be written", error)) from error

    @contextmanager
    def read(self, *, strictly: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """One read-only connection; several processes may have one at the same time.

        Args:
            strictly: for SQL of others, and for a block that writes another file: what keeps it from writing is how
                the file was opened. Else it may be its transaction, in which nothing at all can be written.

        Raises:
            StoreError: there is no database, or it cannot be opened.
        """
        deadline = time.monotonic() + self.lock_wait_s
        with self._undisturbed() as outermost:
            if outermost:  # a writer waits for us where we have the file open already
                wait_while_announced(self._writing, deadline, self._let_go)
            connection = self._connect(True, self.lock_wait_s, deadline, strictly=strictly, in_turn=outermost)
            with self._closed_at_the_end(connection):
                yield connection

    @contextmanager
    def _alone(self, wait_s: float | None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A writing connection. Others see that it is wanted, so that readers let it go first."""
        wait_s = self.lock_wait_s if wait_s is None else wait_s
        deadline = time.monotonic() + wait_s
        with self._undisturbed() as outermost, ExitStack() as stack:
            try:
                if outermost:
                    stack.enter_context(announced(self._writing, deadline, self._let_go))
            except OSError as error:
                raise NotStored(explain(f"The folder of {self.path} cannot be written", error)) from error
            connection = self._connect(False, wait_s, deadline)
            yield stack.enter_context(self._closed_at_the_end(connection))

    @contextmanager
    def _undisturbed(self) -> Iterator[bool]:
        """No other thread is in here during the block; nothing of an instance stays behind one that was broken off.

        Yields:
            Whether this block is in no other one.

        Raises:
            KeyboardInterrupt: where DuckDB puts an error of its own in the place of what a signal's handler raised. It
                may do so at every statement: those that open and close the file, too.
        """
        with _PROCESS_LOCK:
            outermost = self._outermost
            try:
                self._outermost = False
                yield outermost
            except BaseException as error:
                if self._instance is not None:
                    self._instance.drop()
                if isinstance(error, RuntimeError) and "Query interrupted" in str(error):
                    raise KeyboardInterrupt from error
                raise
            finally:
                self._outermost = outermost

    @contextmanager
    def _closed_at_the_end(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        instance = self._instance
        try:
            yield connection
        finally:
            connection.close()
        if instance is not None:
            instance.leave()
            self._left.notify()

    def check_log(self) -> None:
        """Refuse a log that DuckDB would delete unread: one whose database is gone, or one that begins as none does.

        Raises:
            NotStored: it is such a log, or it cannot be read.
        """
        log_file = self.path.with_name(f"{self.path.name}.wal")
        try:
            with open(log_file, "rb") as file:
                head = file.read(len(_LOG_BEGINS))
            alone = head and not (self.path.exists() and self.path.stat().st_size)
        except FileNotFoundError:
            return
        except OSError as error:
            raise NotStored(explain(f"The database {self.path} cannot be opened", error)) from error
        if alone:
            raise NotStored(
                f"The database {self.path} is missing, but its log {log_file.name} is there and may hold rows. Bring "
                "the database back to it; or move the root away and bring a backup in its place with `reval store "
                "restore`."
            )
        if not _LOG_BEGINS.startswith(head):
            raise NotStored(explain(f"The log of the database {self.path} is damaged", "it begins as no log does"))

    def _connect(
        self, read_only: bool, wait_s: float, deadline: float, *, strictly: bool = False, in_turn: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """A connection, as soon as nobody else holds the file; a reader's turn comes ``in_turn``, see `_in_turn`."""
        for other in _LINGERING:
            if other is not self:
                other._let_go()
        self.check_log()
        if read_only and not (self.path.exists() and self.path.stat().st_size):
            raise StoreError(f"There is no database at {self.path}. Is REVAL_HOME right? `reval train` creates it.")
        pause, said = 0.005, False
        with ExitStack() as stack:
            while True:
                try:
                    if self._instance is not None:
                        return self._instance.open(read_only=read_only, strictly=strictly)
                    return duckdb.connect(self.path, read_only=read_only, config={"threads": self.threads})
                except duckdb.Error as error:
                    if not _HELD_BY_OTHER.search(str(error)):
                        raise NotStored(explain(f"The database {self.path} cannot be opened", error)) from error
                    left = deadline - time.monotonic()
                    if left < 0:
                        raise StoreLocked(_explain_holder(self.path, wait_s, error)) from error
                    if not said and left < wait_s - _SAY_AFTER_S:
                        log.warning("waiting for %s, which has %s open", _holder(error), self.path)
                        said = True
                if in_turn:
                    self._in_turn(stack, deadline)
                    in_turn = False
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 1.6, 0.25)

    def _in_turn(self, stack: ExitStack, deadline: float) -> None:
        """Announce a reader who found the file held, until he has it: a run's file may be free for an instant only.

        Whoever may not write into the folder cannot announce himself, and comes when the file happens to be free.
        """
        with suppress(OSError):
            stack.enter_context(announced(self._writing, deadline))


def _holder(error: Exception) -> str:
    holder = _HOLDER.search(str(error))
    return f"process {holder[2]} ({holder[1]})" if holder else "another program"


def _explain_holder(path: Path, waited: float, error: Exception) -> str:
    return (
        f"The database {path} has been held by {_holder(error)} for more than {waited:g} s. Close it there and start "
        f"again; nothing is lost. To read while a run writes, use `reval sql`, which never keeps the file open, or "
        f"open {path.with_name('snapshot.duckdb').name} beside it, which the run keeps fresh."
    )


def file_at_fault(error: duckdb.Error) -> bool:
    """Whether the file or the disk is at fault and not the SQL. A damaged block has no class of its own in DuckDB."""
    return isinstance(error, NOT_WRITTEN) or (type(error) is duckdb.Error and "orrupt" in str(error))


def explain(what: str, error: Exception | str) -> str:
    """What happened, why, and what to do about it, in one line."""
    text = " ".join(str(error).split())
    said = re.sub(r'"[^"]*"', "", text)  # without the names of files
    advice = next((advice for pattern, advice in _ADVICE if pattern.search(said)), "")
    return f"{what}: {text.rstrip('.!')}. {advice}".rstrip()
