"""Between rounds, when no stage waits: the database is put in order, and a copy of it published for slow readers."""

from __future__ import annotations

import logging
import time

from reval_core.errors import StoreError
from tasks.run import Here

log = logging.getLogger(__name__)


EVERY_S = 60.0
"""Seconds between two snapshots at least: one costs as much as all else of a round."""


def publish(here: Here) -> None:
    """Move the round's rows from the log into the database, and renew the snapshot where one is due.

    Rounds that follow each other within a minute share a snapshot; the last one always renews it. What fails here has
    lost nothing and is told, but does not end the run.
    """
    run, every, now = here.run, here.run.config.store.snapshot_every, time.monotonic()
    last = here.iteration + 1 == run.config.run.iterations
    try:
        run.store.settle()
        if every is None or (here.iteration + 1) % every or (now - run.published_at < EVERY_S and not last):
            return
        run.published_at = now
        run.store.snapshot()
    except StoreError as error:
        log.warning("%s", error)
