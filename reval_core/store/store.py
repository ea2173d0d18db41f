"""The store: replay buffer, audit log and SQL table in one DuckDB file.

``Store`` gives short transactions (`write`, `read`) and the three doors that outside programs use: append a batch,
draw from a run's window, query. What stands in the tables is written and read by the modules beside this one,
each about one idea: trajectories, replay, stages, runs, lineage; snapshots and answers are for people who read
while a run writes.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pyarrow as pa

from reval_core.config_replay import ReplayConfig
from reval_core.errors import NotStored, StoreError, StoreLocked
from reval_core.exclusive import announced
from reval_core.store import answers, backup, replay, snapshots, spool, trajectories, vacuum
from reval_core.store.answers import Answer
from reval_core.store.connection import Connections, explain, file_at_fault
from reval_core.store.copies import remove_database
from reval_core.store.migrations import migrate, needs_migration
from reval_core.store.snapshots import Snapshot
from reval_core.store.trajectories import BatchRecord

if TYPE_CHECKING:
    import pandas
    import polars

log = logging.getLogger(__name__)

SLICE_BYTES = 32_000_000
"""Arrow bytes of a part that are appended in one transaction: readers wait for that long."""
ROOM_BYTES = 32_000_000
"""Free disk space that an append needs beside its rows. DuckDB takes all there is before it finds the disk full, and
then nothing is left to keep the rows in."""
MERGED_BYTES = 128_000_000
"""Payload bytes of a full row group up to which small ones are merged between stages, which rewrites them."""


class Store:
    """One database file and the folder of parts that wait beside it.

    Args:
        path: the file; its folder is created. `prepare` brings it to the schema of this version.
        lock_wait_s: seconds to wait for another process that holds the file.
    """

    def __init__(self, path: Path | str, *, lock_wait_s: float = 600.0) -> None:
        self.path = Path(path)
        self.spool = self.path.parent / "spool"
        self._connections = Connections(self.path, lock_wait_s=lock_wait_s)

    def prepare(self) -> None:
        """Create or migrate the database and take in the parts that an earlier attempt could not commit.

        Raises:
            StoreError: the database or its folder cannot be opened or written; nothing there was changed or deleted.
        """
        backup.check_restored(self.path.parent)
        with ExitStack() as stack:
            try:
                self._alone_at_the_start(stack)
                self._connections.check_log()
                vacuum.remove_leftover(self.path)
                if not self.path.exists() or self.path.stat().st_size == 0:
                    self._create()
                elif self._stale():
                    with backup.kept_before_migration(self._connections) as connection:
                        migrate(connection)
                    self.settle()
            except OSError as error:
                raise NotStored(explain(f"The folder of {self.path} cannot be written", error)) from error
            for path in spool.kept(self.spool):
                self._take_in(path)

    def _alone_at_the_start(self, stack: ExitStack) -> None:
        """Let processes that start at the same time prepare one after the other."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        wait_s = self._connections.lock_wait_s
        if not stack.enter_context(announced(self.path.with_suffix(".lock"), time.monotonic() + wait_s)):
            raise StoreLocked(
                f"Another program has been preparing {self.path} for more than {wait_s:g} s. Wait for it, or end it if "
                "it is stuck, and start again; nothing is lost."
            )

    def _create(self) -> None:
        """Make the database aside and rename it: a kill or a full disk leaves no half one."""
        aside = self.path.with_suffix(".new")
        remove_database(aside)
        making = Connections(aside)
        try:
            with making.write() as connection:
                migrate(connection)
            making.settle(merge=lambda connection: False)
            aside.rename(self.path)
        finally:
            remove_database(aside)
        spool.fsync_folder(self.path.parent)

    def _take_in(self, path: Path) -> None:
        try:
            batch, part, run_id, attempt = spool.read(path)
            for _, some in _slices(part):
                self._append(batch, some, run_id, attempt, None)
        except NotStored:
            raise  # the disk or the lock, not the part: it waits on
        except (spool.Damaged, StoreError) as error:
            aside = path.rename(path.with_suffix(".damaged"))
            log.warning(
                "%s cannot be taken in (%s); it is kept as %s, its responses are sampled anew", path, error, aside
            )
            return
        path.unlink()
        log.info("took in %d responses that waited in %s", part.num_rows, path.name)

    def _stale(self) -> bool:
        with self._connections.read() as connection:
            return needs_migration(connection)

    @contextmanager
    def write(self, wait_s: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, committed at the end of the block; waits `wait_s` for others, or ``lock_wait_s``."""
        with self._connections.write(wait_s) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One read-only connection, kept no longer than the block.

        Raises:
            StoreError: the database cannot be opened, or what is asked of it is damaged.
        """
        with self._connections.read() as connection:
            try:
                yield connection
            except duckdb.Error as error:
                if file_at_fault(error):
                    raise NotStored(explain(f"The database {self.path} cannot be read", error)) from error
                raise

    @contextmanager
    def one_instance(self) -> Iterator[None]:
        """For a process that opens the database often and only for its own statements: see `Connections`."""
        with self._connections.one_instance():
            yield

    def append_batch(
        self,
        batch: BatchRecord,
        part: pa.Table,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        wait_s: float | None = None,
        held: Literal["keep aside", "raise"] = "keep aside",
    ) -> None:
        """Append finished responses of a batch; doing it twice changes nothing.

        When the database cannot be written (held too long, disk full) the part is kept beside it as an Arrow file and
        taken in by the next `prepare`, and the error goes on with the file's path in its message.

        Args:
            batch: what made the responses.
            part: table of `trajectories.PART_SCHEMA`.
            wait_s: seconds to wait for another process, by default ``lock_wait_s``.
            held: what becomes of a part while another process holds the database longer: "raise" leaves it to the
                caller, who has it still and comes again.

        Raises:
            StoreLocked: another process holds the database, and ``held`` is "raise"; slices before are stored.
            StoreError: the part is kept beside the database, or the database refused its rows.
        """
        trajectories.check_part(part)
        for first, some in _slices(part):
            try:
                self._append(batch, some, run_id, attempt, wait_s)
            except (NotStored, OSError) as error:
                if held == "raise" and isinstance(error, StoreLocked):
                    raise
                self.keep_aside(batch, part.slice(first), error, run_id=run_id, attempt=attempt)

    def _append(
        self, batch: BatchRecord, some: pa.Table, run_id: str | None, attempt: int | None, wait_s: float | None
    ) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if 0 < free < some.nbytes + ROOM_BYTES:  # at 0 DuckDB takes nothing, or nobody knows how much there is
            why = f"No space left on the disk but {free / 1e6:,.0f} MB"
            raise NotStored(explain(f"The database {self.path} was not written", why))
        with self._connections.write(wait_s, payloads=some.nbytes > SLICE_BYTES // 16) as connection:
            trajectories.append_part(connection, batch, some, run_id=run_id, attempt=attempt)

    def keep_aside(
        self, batch: BatchRecord, part: pa.Table, cause: Exception, *, run_id: str | None, attempt: int | None
    ) -> None:
        """Keep a part that could not be committed and raise an error that says where it lies.

        Raises:
            StoreError: always.
        """
        try:
            path = spool.keep(self.spool, batch, part, run_id=run_id, attempt=attempt)
        except OSError as error:
            raise StoreError(
                f"{part.num_rows} responses could be written neither to the database ({cause}) nor beside it "
                f"({error}). Free disk space and start again; they will be sampled anew."
            ) from cause
        raise StoreError(
            f"{cause} The {part.num_rows} responses are safe in {path} and will be taken in at the next start."
        ) from cause

    def window(self, run_id: str, iteration: int, capacity: int | None) -> list[replay.Entry]:
        """The last ``capacity`` replay entries of the run's chain up to ``iteration``, oldest first; None: all."""
        with self.read() as connection:
            found = replay.window(connection, run_id, iteration, ReplayConfig(capacity=capacity))
            return replay.entries_of(connection, run_id, found)

    def draw(
        self, run_id: str, iteration: int, *, size: int, seed: int, update: int, **settings: Any
    ) -> list[replay.Entry]:
        """Draw from a run's window without replacement; the same arguments draw the same, always.

        Args:
            run_id, iteration: whose window.
            size: trajectories wanted; a smaller window is taken whole.
            seed, update: what the draw derives from, beside the iteration.
            settings: of `ReplayConfig`: capacity, unit, draw, draw_args, excludes_fresh.
        """
        how = ReplayConfig(**settings)
        with self.read() as connection:
            (drawn,) = replay.draw(connection, run_id, iteration, how, size=size, seed=seed, updates=[update])
        return drawn

    def query(self, sql_or_name: str, /, **parameters: Any) -> pa.Table:
        """Run SQL, or a named query of ``sql/queries``, read-only; one of over a second goes to the snapshot.

        Args:
            sql_or_name: a SQL text, or one word that names a query.
            parameters: values of ``$name`` in the text; what a named query is not given is NULL, its default.

        Raises:
            StoreError: the SQL is wrong (DuckDB's message says where), or no query has that name.
        """
        answer = self.ask(sql_or_name, **parameters)
        if answer.note:
            log.warning(answer.note)
        return answer.table

    def ask(self, sql_or_name: str, /, **parameters: Any) -> Answer:
        """As `query`; the answer says whether it is the live database's or the snapshot's, and how old that is."""
        return self._ask(sql_or_name, parameters, answers.LIVE_S)

    def query_live(self, sql_or_name: str, /, **parameters: Any) -> pa.Table:
        """As `query`, of the live database however long it takes: for stages, which must see the last commit."""
        return self._ask(sql_or_name, parameters, None).table

    def _ask(self, sql_or_name: str, parameters: dict[str, Any], live_s: float | None) -> Answer:
        text, parameters = answers.resolve(sql_or_name, parameters)
        return answers.ask(self._connections, text, parameters, live_s=live_s)

    def pandas(self, sql_or_name: str, /, **parameters: Any) -> pandas.DataFrame:
        """As `query`, as a pandas frame."""
        return self.query(sql_or_name, **parameters).to_pandas()

    def polars(self, sql_or_name: str, /, **parameters: Any) -> polars.DataFrame:
        """As `query`, as a polars frame.

        Raises:
            StoreError: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise StoreError("polars is not installed: pip install polars") from error
        frame = polars.from_arrow(self.query(sql_or_name, **parameters))
        assert isinstance(frame, polars.DataFrame)
        return frame

    def snapshot(self, *, payloads: bool | None = None) -> Snapshot:
        """Publish a read-only copy beside the database, ``snapshot.duckdb``, in the place of the last one.

        Args:
            payloads: with tokens and texts; None: when there are few.

        Raises:
            StoreError: it cannot be written; the last one stays.
        """
        return snapshots.publish(self._connections, payloads=payloads)

    def settle(self, wait_s: float | None = None, *, least_bytes: int = 0) -> None:
        """Move committed rows from DuckDB's log into the file, and merge small row groups where that is cheap.

        Args:
            wait_s: seconds to wait for another process, by default ``lock_wait_s``.
            least_bytes: nothing is done while the log is smaller.

        Raises:
            NotStored: the file cannot be opened or written; nothing is lost.
        """

        def is_cheap(connection: duckdb.DuckDBPyConnection) -> bool:
            return trajectories.row_group_bytes(connection) <= MERGED_BYTES

        log_file = self.path.with_name(f"{self.path.name}.wal")
        if not least_bytes or (log_file.exists() and log_file.stat().st_size >= least_bytes):
            self._connections.settle(merge=is_cheap, wait_s=wait_s)


def _slices(part: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The part in pieces of about ``SLICE_BYTES``, each with the number of its first row; at least one."""
    rows = max(1, part.num_rows * SLICE_BYTES // max(1, part.nbytes))
    for first in range(0, max(1, part.num_rows), rows):
        yield first, part.slice(first, rows)
