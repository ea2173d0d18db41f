"""What becomes of the lease of work that failed."""

from __future__ import annotations

import logging

from reval_core.errors import StoreError
from reval_core.store import Store, stages
from reval_core.store.stages import Lease

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Seconds to wait for the database: what made the work fail is to be told soon."""


def give_up(store: Store, lease: Lease) -> None:
    """End the lease, so that nobody waits for it; where the store does not let us, say so and go on."""
    try:
        with store.write(wait_s=PATIENCE_S) as connection:
            stages.end_lease(connection, lease)
    except StoreError as error:
        # the process ends soon, and a lease of a dead process stops nobody
        log.warning("the lease of %s could not be ended: %s", lease.stage_key, error)
