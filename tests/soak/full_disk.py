"""A small disk that is filled up to some bytes before each thing that the store does.

`sweep` tries every step at every amount of free space, so that the disk is full at one write after the other: in the
log, in a block of the database, in its header, in the copy, in the part kept beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reval_core.errors import RevalError
from reval_core.process import ProcessIdentity
from reval_core.store import Store, spool, stages, trajectories
from reval_core.store import store as store_module
from tests.soak.faults import Found, Ledger, compare
from tests.soak.writer import batch_of, part_of, stage_key

SLICE_BYTES = 400_000
OWNER = "full"
STEPS = ("append small", "append payload", "append sliced", "stage", "settle", "snapshot", "take in", "create")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory.

    Raises:
        PermissionError: this user may not mount one here.
    """
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise PermissionError("only root mounts a file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """All of the disk but ``free`` bytes taken by a file."""
    filler, size = disk / "filler", shutil.disk_usage(disk).free - free
    with open(filler, "wb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield
    finally:
        filler.unlink()


@dataclass
class FullDisk:
    """What a sweep found."""

    found: Found = field(default_factory=Found)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(step, what became of it)"""
    told: list[str] = field(default_factory=list)
    """Each error once, without numbers."""
    unsaid: list[str] = field(default_factory=list)
    """Errors that do not say that the disk is full."""


def sweep(disk: Path, frees: Sequence[int]) -> FullDisk:
    """Every step at every amount of free space (bytes), then a start and a comparison with what was acknowledged."""
    result = FullDisk()
    before = store_module.SLICE_BYTES, store_module.ROOM_BYTES
    # appends are tried however little room there is
    store_module.SLICE_BYTES, store_module.ROOM_BYTES = SLICE_BYTES, 0
    try:
        for number, free in enumerate(frees):
            folder = disk / str(number)
            _at(folder, free, result)
            shutil.rmtree(folder)
    finally:
        store_module.SLICE_BYTES, store_module.ROOM_BYTES = before
    return result


def _at(folder: Path, free: int, result: FullDisk) -> None:
    store, ledger = Store(folder / "reval.duckdb", lock_wait_s=1), list[dict[str, object]]()
    store.prepare()
    for number, step in enumerate(STEPS):
        act = _made_ready(store, step, number, ledger)
        with filled(folder.parent, free):
            outcome = _tried(act, result)
        result.outcomes[step, outcome] += 1
        if step.startswith("append") and outcome != "told":
            ledger.append({"did": "append", "owner": OWNER, "number": number})
        store.prepare()
    result.found.add(compare(store.path, [ledger], SLICE_BYTES, result.told))
    result.found.left += len([path for path in folder.rglob("*") if path.suffix == ".tmp"])


def _tried(act: Callable[[], object], result: FullDisk) -> str:
    try:
        act()
    except RevalError as error:
        text = str(error)
        if "No space left" not in text:
            result.unsaid.append(text)
        return "told, kept beside" if "are safe in" in text else "told"
    except Exception as error:
        result.found.untold += 1
        result.told.append(f"{type(error).__name__}: {error}")
        return "not told"
    return "done"


def _made_ready(store: Store, step: str, number: int, ledger: Ledger) -> Callable[[], object]:
    """What the step does, after what must be there before it."""
    kinds = {"append small": 0, "append payload": 1, "append sliced": 2}
    batch, part = batch_of(OWNER, number), part_of(OWNER, number, SLICE_BYTES)
    if step in kinds:
        assert number % 3 == kinds[step]
        return lambda: store.append_batch(batch, part)
    line = {"did": "append", "owner": OWNER, "number": number}
    if step == "take in":
        spool.keep(store.spool, batch, part, run_id=None, attempt=None)
        ledger.append(line)
        return store.prepare
    if step == "create":
        return Store(store.path.parent / "another" / "reval.duckdb").prepare
    if step == "settle":  # through the log, which then has much to move
        store_module.SLICE_BYTES = 10**9
    store.append_batch(batch, part)
    store_module.SLICE_BYTES = SLICE_BYTES
    ledger.append(line)
    return {"stage": lambda: _commit(store, number), "settle": store.settle, "snapshot": store.snapshot}[step]


def _commit(store: Store, number: int) -> None:
    key = stage_key(OWNER, number)
    line = {"owner": OWNER, "number": number, "by": OWNER, "epoch": 1}
    with store.write() as connection:
        trajectories.check_batch(connection, batch_of(OWNER, number))
        lease = stages.take_lease(connection, key, ProcessIdentity.mine())
        stages.commit(connection, lease, "generate", {}, line, seconds=1.0, run_id=None, attempt=None)
