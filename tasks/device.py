"""A device is a Prefect concurrency limit, held by whatever keeps a model on it; the next one waits, and says for whom.

The limit is named HOST:DEVICE, as gpu-box:cuda:0. A slot is leased, and the lease is renewed while its holder lives.
Beside the limit stands a file that names the holder's process: the slot of a process that was killed is given back at
once by whoever wants it next, without waiting for the lease to run out.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client
from prefect.context import FlowRunContext

from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store.files import write_text

log = logging.getLogger(__name__)

LEASE_S = 90.0
"""Seconds after which a slot that nobody renews is free again; the server's least is 60."""
LOOK_S = 1.0
"""Seconds between two tries."""
LOCKED = 423


@dataclass(frozen=True)
class Holder:
    """Who holds a device, as its file says."""

    lease_id: str
    process: ProcessIdentity
    what: str
    since: str
    """UTC."""


@contextmanager
def device_held(home: Home, device: str, what: str) -> Iterator[None]:
    """Hold the device for the block; outside a flow run there is no server to ask, and nothing is held.

    Whom this one waits for is a warning, told once: it is seen where no progress is shown, too.

    Args:
        home: the root; the holder's file is under it.
        device: ``cpu``, ``cuda:0``, or ``cpu:1`` for a name of one's own.
        what: told to those who wait.
    """
    if FlowRunContext.get() is None:
        yield
        return
    me = ProcessIdentity.mine()
    limit = f"{me.host}:{device}"
    file = home.root / "devices" / f"{device.replace(':', '-')}.json"
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit, 1)
        lease = _acquire(client, limit, file)
        done = threading.Event()
        thread = threading.Thread(target=_renew, args=(lease, limit, done), daemon=True)
        holder = Holder(str(lease), me, what, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
        try:
            write_text(file, json.dumps(asdict(holder)))
            thread.start()
            yield
        finally:
            done.set()
            if thread.ident is not None:
                thread.join()
            _give_back(client, lease, limit, file)


def _acquire(client: Any, limit: str, file: Path) -> UUID:
    """The lease of the slot, once it is free."""
    told = False
    while True:
        try:
            answer = client.increment_concurrency_slots_with_lease([limit], 1, "concurrency", LEASE_S)
            return UUID(answer.json()["lease_id"])
        except httpx.HTTPStatusError as error:
            if error.response.status_code != LOCKED:
                raise
        holder = _read(file)
        if holder is not None and holder.process.is_alive() is False:
            log.info("%s was held by process %d, which is gone", limit, holder.process.pid)
            _give_back(client, UUID(holder.lease_id), limit, file)
            continue
        if not told:
            told = True
            by = f"{holder.what} (process {holder.process.pid}, since {holder.since} UTC)" if holder else (
                f"a program that does not work in {file.parent.parent}: of another root, or another one. Prefect's "
                f"limit {limit!r} has no free slot. Only if nothing at all uses the device, free it: `prefect "
                f"global-concurrency-limit update {limit} --active-slots 0`"
            )  # fmt: skip
            log.warning("waiting for %s, which is held by %s", limit, by)
        time.sleep(LOOK_S)


def _renew(lease: UUID, limit: str, done: threading.Event) -> None:
    """Until it is done, keep the lease; what fails is tried again, for the lease lives three times as long."""
    with get_client(sync_client=True) as client:
        while not done.wait(LEASE_S / 3):
            try:
                client.renew_concurrency_lease(lease, LEASE_S)
            except httpx.HTTPError as error:
                log.warning("the lease of %s could not be renewed: %s", limit, error)


def _give_back(client: Any, lease: UUID, limit: str, file: Path) -> None:
    holder = _read(file)
    if holder is not None and holder.lease_id == str(lease):
        file.unlink(missing_ok=True)  # before the slot is free: the next holder writes its own
    try:
        client.release_concurrency_slots_with_lease(lease)
    except httpx.HTTPError as error:
        log.warning("%s could not be given back, it is free again in %g s: %s", limit, LEASE_S, error)


def _read(file: Path) -> Holder | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Holder(**kept | {"process": ProcessIdentity(**kept["process"])})
