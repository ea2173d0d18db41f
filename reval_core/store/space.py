"""Whether something fits the disk, asked before it is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

from reval_core.errors import StoreError


def require(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: where it will be written; it need not be there yet.
        needed: bytes, about.
        what: the subject of the message, as "The responses of round 3".

    Raises:
        StoreError: says how much is needed, how much is free, and what to do.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StoreError(
            f"{what} would need about {size(needed)}, and the disk of {there} has {size(free)} free: it was not begun. "
            "Free some space (`reval prune` removes what your `retention` rules do not keep, `reval store archive` "
            "and then `reval store vacuum` shrink the database), then start again; nothing is lost."
        )


def size(count: float) -> str:
    """Bytes for people: ``12 B``, ``3.4 MB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
