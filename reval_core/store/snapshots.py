"""A read-only copy of the database beside it, for slow queries and for programs that keep a file open.

``snapshot.duckdb`` is written aside and renamed, so it is whole whenever somebody opens it, and whoever has the former
one open keeps that. It has the narrow tables, the views and the comments. Payloads (tokens and texts) come along while
there are few of them, or on demand; a snapshot without them refuses a query that asks for one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from reval_core.errors import StoreError
from reval_core.exclusive import announced
from reval_core.store import statements as sql
from reval_core.store.connection import Connections, explain
from reval_core.store.copies import copy_database, remove_database, state_of
from reval_core.store.migrations import now

log = logging.getLogger(__name__)

FEW_BYTES = 64_000_000
"""Payloads up to here are part of every snapshot."""
NO_PAYLOADS = "This snapshot has no tokens and texts"
"""What the error of a query says that asks a snapshot for what it has not (see sql/statements/copies.sql)."""


@dataclass(frozen=True)
class Snapshot:
    """A published copy."""

    path: Path
    taken_at: datetime
    """UTC"""
    payloads: bool
    """Whether tokens and texts are in it."""
    source: str
    """State of the database's files when it was taken."""

    @property
    def age_s(self) -> float:
        """Seconds since it was taken."""
        return max(0.0, (now() - self.taken_at).total_seconds())

    def is_younger(self, most_age_s: float) -> bool:
        """Whether it is at most so old. One of the future, after the clock was set back, is of no known age."""
        return timedelta(0) <= now() - self.taken_at <= timedelta(seconds=most_age_s)


def path_of(database: Path) -> Path:
    """Where the snapshot of a database lies."""
    return database.with_name("snapshot.duckdb")


def find(database: Path) -> Snapshot | None:
    """The published snapshot; None where there is none that can be read, so that a new one takes its place."""
    path = path_of(database)
    if not path.exists():
        return None
    try:
        with duckdb.connect(path, read_only=True) as connection:
            taken_at, payloads, source = sql.rows(connection, "copies", "snapshot")[0]
    except duckdb.Error as error:
        log.warning("%s cannot be read and is made anew: %s", path, error)
        return None
    return Snapshot(path, taken_at, payloads, source)


def publish(
    connections: Connections, *, payloads: bool | None = None, progress: Callable[[float], None] = lambda share: None
) -> Snapshot:
    """Copy the database's present state and put it in the place of the last snapshot.

    Args:
        connections: of the database.
        payloads: copy tokens and texts too; None: when there are few.
        progress: told the share of the payloads that is copied.

    Raises:
        StoreError: the snapshot cannot be written; the last one stays.
    """
    final = path_of(connections.path)
    aside = final.with_suffix(".tmp")
    wait_s = connections.lock_wait_s
    try:
        with announced(final.with_suffix(".lock"), time.monotonic() + wait_s) as alone:
            if not alone:
                raise StoreError(
                    f"Another program has been writing {final} for more than {wait_s:g} s. End it if it is stuck."
                )
            remove_database(aside)
            copied = copy_database(
                connections, aside, payloads=_few if payloads is None else payloads, mark=True, progress=progress
            )
            aside.rename(final)
    except OSError as error:
        raise StoreError(explain(f"The snapshot {final} cannot be written", error)) from error
    return Snapshot(final, copied.taken_at, copied.payloads, copied.source)


def current(connections: Connections, *, payloads: bool, most_age_s: float) -> Snapshot:
    """The published snapshot when it is of the database's present state or young enough, else a new one.

    Args:
        connections: of the database.
        payloads: whether tokens and texts must be in it.
        most_age_s: seconds that it may be old.

    Raises:
        StoreError: a new one is needed and cannot be written.
    """
    found = find(connections.path)
    has_it = found is not None and (found.payloads or not payloads)
    if found is not None and has_it and (found.is_younger(most_age_s) or found.source == state_of(connections.path)):
        return found
    return publish(connections, payloads=payloads or None)


def _few(size: int) -> bool:
    return size <= FEW_BYTES
