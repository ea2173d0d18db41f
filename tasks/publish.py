"""Between rounds, when no stage waits: the database is put in order, and a copy of it published for slow readers."""

from __future__ import annotations

import logging
import time

from reval_core.errors import StoreError
from tasks.run import Here

log = logging.getLogger(__name__)


SMALL_LOG = 1_000_000
"""Bytes of a log that may stay: to read it again takes an opening less time than to move it each round takes a run."""
EVERY_S = 120.0
"""Seconds between two snapshots at least: one costs as much as all else of a round."""


def publish(here: Here) -> None:
    """Settle the store, and renew the snapshot where one is due.

    Rounds that follow each other within two minutes share a snapshot; the last one always renews it. What fails here
    has lost nothing and is told, but does not end the run.
    """
    settle(here)
    run, every, now = here.run, here.run.config.store.snapshot_every, time.monotonic()
    last = here.iteration + 1 == run.config.run.iterations
    try:
        if every is None or (here.iteration + 1) % every or (now - run.published_at < EVERY_S and not last):
            return
        run.published_at = now
        run.store.snapshot()
    except StoreError as error:
        log.warning("%s", error)


def settle(here: Here) -> None:
    """Move a log that has grown into the database: every opening reads it again. A failure is told, as in `publish`."""
    try:
        here.run.store.settle(least_bytes=SMALL_LOG)
    except StoreError as error:
        log.warning("%s", error)
