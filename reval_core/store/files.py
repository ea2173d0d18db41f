"""Files and folders that are copied so that the copy is whole and on the disk, or not there under its name.

Copies keep the time of their last change: a file of the same size and time is not copied again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reval_core.errors import StoreError
from reval_core.store import space

_FICLONE = 0x40049409
"""Linux's request to let a file share another one's blocks (ioctl_ficlone(2))."""
_TRIES = 3
_UNFINISHED = (".tmp", ".old")
"""Endings of what is being written or replaced."""


@dataclass
class Tally:
    """What became of the files that were to be copied."""

    copied: int = 0
    copied_bytes: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0

    def add(self, size: int, *, copied: bool) -> None:
        """Count a file of ``size`` bytes."""
        if copied:
            self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + size
        else:
            self.unchanged, self.unchanged_bytes = self.unchanged + 1, self.unchanged_bytes + size


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; 0 for what is not there."""
    if path.is_dir():
        return sum(size for size, _ in _listing(path).values())
    return path.stat().st_size if path.exists() else 0


def copy_open(source: BinaryIO, to: Path, what: str) -> None:
    """Copy an open file to a new path; the file system lets both share their blocks where it can.

    Raises:
        StoreError: there is no room for it; nothing is left of the copy.
        OSError: it cannot be written; nothing is left of it.
    """
    try:
        with open(to, "xb") as target:
            try:
                fcntl.ioctl(target, _FICLONE, source.fileno())
            except OSError:  # another file system, or one that cannot do it
                space.require(to.parent, os.fstat(source.fileno()).st_size, what)
                source.seek(0)
                shutil.copyfileobj(source, target, 2**24)
            target.flush()
            os.fsync(target.fileno())
    except BaseException:
        to.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small file, which is whole whenever somebody reads it, whatever happens to this process or machine.

    Raises:
        OSError: it cannot be written; the one before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def copy_folder(source: Path, to: Path, tally: Tally) -> None:
    """Copy a folder that only ever changes as a whole, by renaming; one that is there with the same files stays.

    Raises:
        FileNotFoundError: the folder is gone.
        StoreError: it was replaced again and again meanwhile.
    """
    aside, before = to.with_name(f"{to.name}.tmp"), to.with_name(f"{to.name}.old")
    for _ in range(_TRIES):
        state = _state(source)
        if to.is_dir() and _listing(to) == state[1]:
            for size, _ in state[1].values():
                tally.add(size, copied=False)
            return
        shutil.rmtree(aside, ignore_errors=True)
        try:
            for name in state[1]:
                _copy_file(source / name, aside / name)
            whole = _state(source) == state
        except FileNotFoundError:
            whole = False  # gone, or replaced: the next try shows which
        if whole:
            to.parent.mkdir(parents=True, exist_ok=True)
            if to.exists():
                to.rename(before)
            aside.rename(to)
            sync(to.parent)
            shutil.rmtree(before, ignore_errors=True)
            for size, _ in state[1].values():
                tally.add(size, copied=True)
            return
    shutil.rmtree(aside, ignore_errors=True)
    raise StoreError(f"{source} was replaced each time that it was copied. Try again.")


def copy_files(source: Path, to: Path, tally: Tally) -> None:
    """Copy a file, or the files under a folder one by one, as far as they changed; one that goes meanwhile is left out.

    SQLite databases are copied by SQLite, so that they are whole while somebody writes to them.
    """
    for name, stamp in _listing(source).items() if source.is_dir() else [("", _stamp(source))]:
        target, is_sqlite = to / name, (source / name).suffix == ".db"
        new = is_sqlite or not target.is_file() or _stamp(target) != stamp  # SQLite's newest rows lie in another file
        if new:
            try:
                _replace(source / name, target, _copy_sqlite if is_sqlite else _copy_file)
            except FileNotFoundError:
                continue
        tally.add(stamp[0], copied=new)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed copy left in a folder; a replaced folder whose successor never came gets its name back."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.suffix == ".old" and not left.with_suffix("").exists():
            left.rename(left.with_suffix(""))
        elif left.suffix in _UNFINISHED:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each finished file under a folder, by its path in it."""
    return dict(_stamps(folder))


def _stamps(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _UNFINISHED or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        try:
            if path.is_file():
                yield str(path.relative_to(folder)), _stamp(path)
        except FileNotFoundError:
            continue


def _state(folder: Path) -> tuple[int, dict[str, tuple[int, int]]]:
    """Which folder it is, and what is in it."""
    return folder.stat().st_ino, _listing(folder)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _replace(source: Path, target: Path, copy: Callable[[Path, Path], None]) -> None:
    aside = target.with_name(f"{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.unlink(missing_ok=True)
    copy(source, aside)
    aside.rename(target)
    sync(target.parent)


def _copy_file(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as file:
        found = os.fstat(file.fileno())
        copy_open(file, to, f"The copy {to}")
    os.utime(to, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_sqlite(source: Path, to: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as database,
        closing(sqlite3.connect(to)) as copy,
    ):
        database.backup(copy)
    sync(to)
