"""The store: replay buffer, audit log and SQL table in one DuckDB file.

``Store`` gives short transactions (`write`, `read`) and the three doors that outside programs use: append a batch,
draw from a run's window, query. What stands in the tables is written and read by the modules beside this one,
each about one idea: trajectories, replay, stages, runs, lineage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.config import ReplayConfig
from reval_core.errors import NotStored, StoreError
from reval_core.exclusive import exclusive
from reval_core.store import replay, spool, trajectories
from reval_core.store.connection import Connections
from reval_core.store.migrations import migrate, needs_migration
from reval_core.store.sqlfiles import query_names, query_text
from reval_core.store.statements import arrow_table
from reval_core.store.trajectories import BatchRecord

log = logging.getLogger(__name__)


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
            for path in spool.kept(self.spool):
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        try:
            batch, part, run_id, attempt = spool.read(path)
            with self.write() as connection:
                trajectories.append_part(connection, batch, part, run_id=run_id, attempt=attempt)
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
            with self.write(wait_s) as connection:
                trajectories.append_part(connection, batch, part, run_id=run_id, attempt=attempt)
        except (NotStored, OSError) as error:
            self.keep_aside(batch, part, error, run_id=run_id, attempt=attempt)

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
        """Run SQL, or a named query of ``sql/queries``, read-only.

        Args:
            sql_or_name: a SQL text, or one word that names a query.
            parameters: values of ``$name`` in the text; what a named query is not given is NULL, its default.

        Raises:
            StoreError: the SQL is wrong (DuckDB's message says where), or no query has that name.
        """
        text = sql_or_name.strip()
        sql = text
        if text in query_names() or text.isidentifier():
            sql = query_text(text)
            expected = duckdb.extract_statements(sql)[0].named_parameters
            parameters = dict.fromkeys(expected) | parameters
        with self.read() as connection:
            try:
                return arrow_table(connection, sql, parameters)
            except duckdb.Error as error:
                raise StoreError(f"The query failed: {error}") from error
