"""Between rounds, when no stage waits: the database is put in order, and a copy of it published for slow readers."""

from __future__ import annotations

import logging

from reval_core.errors import StoreError
from tasks.run import Here

log = logging.getLogger(__name__)


def publish(here: Here) -> None:
    """Move the round's rows from the log into the database, and renew the snapshot where one is due.

    What fails here has lost nothing and is told, but does not end the run.
    """
    run, every = here.run, here.run.config.store.snapshot_every
    try:
        run.store.settle()
        if every is not None and (here.iteration + 1) % every == 0:
            run.store.snapshot()
    except StoreError as error:
        log.warning("%s", error)
