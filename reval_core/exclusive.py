"""One process at a time: lock files that the operating system gives back, also after a kill."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block of the same lock file, then enter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nothing() -> None:
    pass


@contextmanager
def announced(path: Path, deadline: float, waiting: Callable[[], None] = _nothing) -> Iterator[bool]:
    """Enter a block of which others can see that somebody is in it, one process at a time.

    Args:
        path: the lock file; created.
        deadline: on `time.monotonic`'s clock; the block is entered at the latest then.
        waiting: called while another process is in one, as something may have to be given back for it to end.

    Yields:
        Whether no other process is in such a block.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _taken(descriptor, fcntl.LOCK_EX, deadline, waiting)
    finally:
        os.close(descriptor)


def wait_while_announced(path: Path, deadline: float, waiting: Callable[[], None] = _nothing) -> None:
    """Wait until nobody is in a block that was `announced`, or until the deadline; `waiting` as there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # nobody has written yet, or nobody here may look
        return
    try:
        _taken(descriptor, fcntl.LOCK_SH, deadline, waiting)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int, deadline: float, waiting: Callable[[], None]) -> bool:
    pause = 0.002
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        waiting()
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.6, 0.1)
