"""The store: replay buffer, audit log and SQL table in one DuckDB file.

``Store`` gives short transactions (`write`, `read`) and the three doors that outside programs use: append a batch,
draw from a run's window, query. What stands in the tables is written and read by the modules beside this one,
each about one idea: trajectories, replay, stages, runs, lineage; snapshots and answers are for people who read
while a run writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from reval_core.config import ReplayConfig
from reval_core.errors import NotStored, StoreError
from reval_core.exclusive import exclusive
from reval_core.store import answers, replay, snapshots, spool, trajectories
from reval_core.store.answers import Answer
from reval_core.store.connection import Connections
from reval_core.store.migrations import migrate, needs_migration
from reval_core.store.snapshots import Snapshot
from reval_core.store.trajectories import BatchRecord

if TYPE_CHECKING:
    import pandas
    import polars

log = logging.getLogger(__name__)

SLICE_BYTES = 32_000_000
"""Arrow bytes of a part that are appended in one transaction: readers wait for that long."""


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
        """Create or migrate the database and take in the parts that an earlier attempt could not commit."""
        with exclusive(self.path.with_suffix(".lock")):  # two processes that start at once
            if self.path.exists() and self.path.stat().st_size == 0:
                self.path.unlink()  # a kill or a full disk while DuckDB made the file; there is nothing in it
            if not self.path.exists() or self._stale():
                with self._connections.write() as connection:
                    migrate(connection)
                self.settle()
            for path in spool.kept(self.spool):
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        try:
            batch, part, run_id, attempt = spool.read(path)
            self._append(batch, part, run_id, attempt, None)
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
        """One read-only connection, kept no longer than the block."""
        with self._connections.read() as connection:
            yield connection

    def append_batch(
        self,
        batch: BatchRecord,
        part: pa.Table,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        wait_s: float | None = None,
    ) -> None:
        """Append finished responses of a batch; doing it twice changes nothing.

        When the database cannot be written (held too long, disk full) the part is kept beside it as an Arrow file and
        taken in by the next `prepare`, and the error goes on with the file's path in its message.

        Args:
            batch: what made the responses.
            part: table of `trajectories.PART_SCHEMA`.
            wait_s: seconds to wait for another process, by default ``lock_wait_s``.

        Raises:
            StoreError: the part is kept beside the database, or the database refused its rows.
        """
        trajectories.check_part(part)
        try:
            self._append(batch, part, run_id, attempt, wait_s)
        except (NotStored, OSError) as error:
            self.keep_aside(batch, part, error, run_id=run_id, attempt=attempt)

    def _append(
        self, batch: BatchRecord, part: pa.Table, run_id: str | None, attempt: int | None, wait_s: float | None
    ) -> None:
        rows = max(1, part.num_rows * SLICE_BYTES // max(1, part.nbytes))
        for first in range(0, max(1, part.num_rows), rows):
            some = part.slice(first, rows)
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
            f"{cause} The {part.num_rows} responses are safe in {path} and will be taken in at the next start. Free "
            "disk space, or close the program that holds the database."
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

    def query(self, sql_or_name: str, **parameters: Any) -> pa.Table:
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

    def ask(self, sql_or_name: str, **parameters: Any) -> Answer:
        """As `query`; the answer says whether it is the live database's or the snapshot's, and how old that is."""
        return self._ask(sql_or_name, parameters, answers.LIVE_S)

    def query_live(self, sql_or_name: str, **parameters: Any) -> pa.Table:
        """As `query`, of the live database however long it takes: for stages, which must see the last commit."""
        return self._ask(sql_or_name, parameters, None).table

    def _ask(self, sql_or_name: str, parameters: dict[str, Any], live_s: float | None) -> Answer:
        text, parameters = answers.resolve(sql_or_name, parameters)
        return answers.ask(self._connections, text, parameters, live_s=live_s)

    def pandas(self, sql_or_name: str, **parameters: Any) -> pandas.DataFrame:
        """As `query`, as a pandas frame."""
        return self.query(sql_or_name, **parameters).to_pandas()

    def polars(self, sql_or_name: str, **parameters: Any) -> polars.DataFrame:
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
        """
        return snapshots.publish(self._connections, payloads=payloads)

    def settle(self, wait_s: float | None = None) -> None:
        """Move committed rows from DuckDB's log into the file, and merge small row groups where that is cheap.

        Args:
            wait_s: seconds to wait for another process, by default ``lock_wait_s``.

        Raises:
            NotStored: the file cannot be opened or written; nothing is lost.
        """
        with self.read() as connection:
            merge = trajectories.row_group_bytes(connection) <= MERGED_BYTES
        self._connections.settle(merge=merge, wait_s=wait_s)
