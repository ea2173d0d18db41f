"""Copies of a whole root while runs go on, and the way back; a copy of the database before a migration.

A backup is a folder laid out as the root itself, so that it can be used as one: the database as it was at one moment,
and the files that this database refers to. Those are copied after it, since a file is there before a row names it; what
the database takes in (parts that wait, archives that are brought back) before it too. So nothing is missing, and what
is there twice is known by its id.

    spool, archive -> database aside -> spool, archive, policies, models -> rename the database -> backup.json

Until the rename the folder holds the former backup, whole. A second backup into the same folder copies only the files
that changed, and the database.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import duckdb

from reval_core import __version__
from reval_core.errors import StoreError
from reval_core.exclusive import announced, exclusive
from reval_core.home import Home
from reval_core.store import contents, migrations, space
from reval_core.store import statements as sql
from reval_core.store.connection import Connections, explain
from reval_core.store.copies import copy_database, remove_database
from reval_core.store.files import (
    Tally,
    copy_files,
    copy_folder,
    copy_open,
    remove_unfinished,
    size_of,
    sync,
    write_text,
)

log = logging.getLogger(__name__)

Extent = Literal["database", "root", "all"]
"""The database alone; with the files that it refers to; with the files that can be made from it again."""
Step = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

NOTE, LOCK = "backup.json", "backup.lock"
UNFINISHED = "restore.unfinished"
ADDED_TO = ("spool", "archive")
"""Folders whose files are written once and go when the database has taken them in."""
RETENTION_WAIT_S = 600.0
"""Seconds to wait for somebody who archives or prunes. Who wants to during a backup does it later."""
VIEWS = ("logs", "reports", "mlflow.db", "mlartifacts", "prefect")
"""What is made from the store or beside it, and no run needs."""


@dataclass(frozen=True)
class Backup:
    """What a backup has; ``backup.json`` in it says the same."""

    taken_at: str
    """UTC; the database is as it was then."""
    source: str
    """The root or file that it is of."""
    extent: Extent
    reval: str
    duckdb: str
    schema_version: int
    database_bytes: int
    rows: dict[str, int]
    """Of each table."""
    folders: list[str]
    """Saved policies and base models that are in it."""
    gone: list[str] = field(default_factory=list)
    """Folders that the database refers to and that are not there: such a policy is learned again."""
    outside: list[str] = field(default_factory=list)
    """Base models that lie outside the root and are not in it."""


class _Counting(Connections):
    """Counts every table in its first connection: the one in which a copy takes the narrow tables."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows: dict[str, int] = {}

    @contextmanager
    def read(self, *, strictly: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        with super().read(strictly=strictly) as connection:
            self.rows = self.rows or contents.row_counts(connection)
            yield connection


def back_up(home: Home, dest: Path, *, extent: Extent = "root", step: Step) -> tuple[Backup, Tally]:
    """Copy a root into a folder of its own; runs may go on meanwhile.

    Args:
        home: the root.
        dest: a new or empty folder, or an earlier backup of the same store, which is brought up to date.
        extent: what is copied.
        step: told the progress.

    Returns:
        What the backup has, and how many files were copied for it.

    Raises:
        StoreError: the folder is something else, or cannot be written; an earlier backup in it stays whole.
    """
    dest = dest.expanduser().resolve()
    try:
        _check_source(home.database)
        _check_destination(home, dest)
        dest.mkdir(parents=True, exist_ok=True)
        nothing_goes = announced(home.root / "retention.lock", time.monotonic() + RETENTION_WAIT_S)
        with exclusive(dest / LOCK), nothing_goes as is_alone:
            if not is_alone:
                raise StoreError(f"Another process archives or prunes {home.root}. Back it up when it has ended.")
            if not (dest / NOTE).exists():  # from here on the folder is known for a backup, whenever it is cut short
                _write_note(dest, {"unfinished": True, "source": str(home.root)})
            done, tally = _copy_root(home.database, dest, extent, step)
            _write_note(dest, asdict(done))
    except (OSError, duckdb.Error) as error:
        raise StoreError(explain(f"The backup {dest} cannot be made", error)) from error
    return done, tally


def restore(source: Path, home: Home, *, step: Step) -> tuple[Backup, Tally]:
    """Make a root from a backup, from another root, or from a database file alone.

    Args:
        source: its folder or file; it is only read.
        home: a missing or empty root.
        step: told the progress.

    Raises:
        StoreError: something stands in the root, the source holds no store, or cannot be read.
    """
    source = source.expanduser().resolve()
    database = source / "reval.duckdb" if source.is_dir() else source
    if not database.is_file():
        raise StoreError(f"There is no backup {source}: {database} is no file. Give a folder with a reval.duckdb.")
    unfinished = home.root / UNFINISHED
    if home.root.is_dir() and any(home.root.iterdir()) and not unfinished.exists():
        raise StoreError(
            f"{home.root} is not empty, and a restore overwrites nothing. Move it away first: "
            f"mv {shlex.quote(str(home.root))} {shlex.quote(f'{home.root}.before')}"
        )
    try:
        _check_source(database)
        home.root.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        done, tally = _copy_root(database, home.root, "all" if source.is_dir() else "database", step)
        unfinished.unlink()
        sync(home.root)
    except (OSError, duckdb.Error) as error:
        raise StoreError(explain(f"{home.root} cannot be restored from {source}", error)) from error
    return done, tally


def check_restored(root: Path) -> None:
    """Refuse to work in a root of which a restore that was cut short has made a part.

    Raises:
        StoreError: it is one.
    """
    if os.path.exists(root / UNFINISHED):  # False of a root that may not be read: opening its database says that
        raise StoreError(
            f"A restore into {root} was cut short, and would overwrite what is done in it now. Give the same `reval "
            "store restore` again; or, to begin without it, move the folder away."
        )


def read_note(folder: Path) -> Backup | None:
    """What a backup says of itself; None for a folder without a note, or with that of one that was cut short.

    Raises:
        StoreError: the note is damaged.
    """
    path = folder / NOTE
    if not path.is_file():
        return None
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return None if note.get("unfinished") else Backup(**note)
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}. The database beside it need not be.") from error


@contextmanager
def kept_before_migration(connections: Connections) -> Iterator[duckdb.DuckDBPyConnection]:
    """A writing transaction for a migration; the database was copied to ``backups`` beside it where tables will change.

    Raises:
        StoreError: the disk has no room for the copy; nothing was changed.
    """
    # Opened before the connection and closed after it: a process that closes any descriptor of a file gives up its
    # locks on that file, DuckDB's among them.
    with open(connections.path, "rb") as file, connections.write() as connection:
        with closing(connection.cursor()) as before:
            version = migrations.version_to_leave(before)
            if version is not None:
                before.execute("CHECKPOINT")  # the copy is of the file alone
                _keep(connections.path, file, version, contents.row_counts(before))
        yield connection


def _keep(database: Path, file: BinaryIO, version: int, rows: dict[str, int]) -> None:
    kept = database.parent / "backups" / f"{database.stem}-v{version}-{migrations.now():%Y%m%dT%H%M%S}.duckdb"
    kept.parent.mkdir(exist_ok=True)
    remove_unfinished(kept.parent)
    aside = kept.with_suffix(".tmp")
    try:
        copy_open(file, aside, f"The copy of {database} before its migration")
        contents.check(aside, rows)
        aside.rename(kept)
        sync(kept.parent)
    except OSError as error:
        raise StoreError(explain(f"The copy {kept} before the migration cannot be written", error)) from error
    finally:
        aside.unlink(missing_ok=True)
    log.warning("the database of schema version %d is kept as %s; now it is migrated", version, kept)


def _check_destination(home: Home, dest: Path) -> None:
    """Refuse a folder into which a backup of this root must not be written.

    Raises:
        StoreError: it lies in the root, is no folder, is not empty, or is another store's.
    """
    root = home.root.resolve()
    if dest.is_relative_to(root):
        raise StoreError(f"{dest} lies in the root {root}. Give a folder outside of it, best on another disk.")
    if dest.exists() and not dest.is_dir():
        raise StoreError(f"{dest} is no folder. Give a folder for the backup; it is laid out as a root.")
    database = dest / "reval.duckdb"
    if not (dest / NOTE).is_file():
        if database.exists():
            raise StoreError(f"{dest} is the root of another store. Give a new folder.")
        if dest.is_dir() and any(path.name != LOCK for path in dest.iterdir()):  # which is there before the note
            raise StoreError(f"{dest} is not empty and is no backup. Give a new folder.")
    elif database.exists():
        _check_earlier(home, database)


def _check_earlier(home: Home, database: Path) -> None:
    """Refuse to replace a database that is no earlier state of this one."""
    if database.with_name(f"{database.name}.wal").exists():
        raise StoreError(f"Somebody has written to the backup {database} itself. Give a new folder.")
    quoted = str(database).replace("'", "''")
    with Connections(home.database).read() as connection:
        connection.execute(f"ATTACH '{quoted}' AS earlier (READ_ONLY)")
        unknown = sql.row(connection, "maintenance", "unknown_here")
    if unknown:
        raise StoreError(
            f"{database.parent} is a backup of another store, or work went on in it: it has {unknown[0]}, which "
            f"{home.root} has not. Give a new folder."
        )


def _check_source(database: Path) -> None:
    """Refuse a file that no root can be made of."""
    with Connections(database).read() as connection:
        found = contents.tables(connection)
    if "trajectories" not in found:
        raise StoreError(f"{database} is no store of ReVal: it has no table store.trajectories.")
    if "payloads" not in found:
        raise StoreError(
            f"{database} is a snapshot without tokens and texts, and no run can go on from it. Take a backup instead."
        )


def _copy_root(database: Path, to: Path, extent: Extent, step: Step) -> tuple[Backup, Tally]:
    """Copy a database and what belongs to it into a folder, which holds what it held until the database is renamed."""
    root, final, tally = database.parent, to / "reval.duckdb", Tally()
    aside = final.with_suffix(".tmp")
    remove_database(aside)
    for left in (to, to / "policies", to / "models"):
        remove_unfinished(left)
    added, folders, gone, outside = set[Path](), list[str](), list[str](), list[str]()
    if extent != "database":
        added |= _copy_added(root, to, tally)
    rows, taken_at = _copy_database(database, aside, step)
    version = contents.check(aside, rows)
    if extent != "database":
        added |= _copy_added(root, to, Tally())  # counted above, but for what came since
        folders, outside = _referred(aside, root)
        gone = _copy_folders(root, to, folders, tally, step)
    for name in VIEWS if extent == "all" else ():
        if (root / name).exists():
            copy_files(root / name, to / name, tally)
    size = aside.stat().st_size
    aside.rename(final)
    sync(to)
    kept = [name for name in folders if name not in gone]
    if extent != "database":
        _remove_others(to, {*added, *(to / name for name in kept)})
    done = Backup(
        taken_at, str(root), extent, __version__, duckdb.__version__, version, size, rows, kept, gone, outside
    )
    return done, tally


def _copy_database(database: Path, aside: Path, step: Step) -> tuple[dict[str, int], str]:
    """Copy the database as it is at one moment; gives the rows that it had then, and the moment."""
    space.require(aside.parent, size_of(database), f"A copy of {database}")
    counting = _Counting(database)
    copied = copy_database(
        counting,
        aside,
        payloads=True,
        progress=lambda share: step("copying tokens and texts (percent)", round(100 * share), 100),
    )
    rows = dict(counting.rows)
    if rows.pop("snapshot", None) is not None:  # what only a snapshot has
        with duckdb.connect(aside) as connection:
            connection.execute("DROP TABLE store.snapshot")
    return rows, f"{copied.taken_at:%Y-%m-%dT%H:%M:%SZ}"


def _copy_added(root: Path, to: Path, tally: Tally) -> set[Path]:
    """Copy the files that come and go with what the database takes in; gives their places in the copy."""
    found = set()
    for name in ADDED_TO:
        if (root / name).is_dir():
            copy_files(root / name, to / name, tally)
            found |= {to / name / path.name for path in (root / name).iterdir()}
    return found


def _referred(database: Path, root: Path) -> tuple[list[str], list[str]]:
    """Folders that a database refers to, relative to the root, and those that lie outside of it."""
    with duckdb.connect(database, read_only=True) as connection:
        named = [folder for (folder,) in sql.rows(connection, "maintenance", "folders")]
    inside = [name for name in named if (root / name).resolve().is_relative_to(root.resolve())]
    return inside, [name for name in named if name not in inside]


def _copy_folders(root: Path, to: Path, folders: list[str], tally: Tally, step: Step) -> list[str]:
    """Copy the folders; gives those that are not there."""
    gone = []
    for done, name in enumerate(folders, start=1):
        try:
            copy_folder(root / name, to / name, tally)
        except FileNotFoundError:
            gone.append(name)
        step("copying policies", done, len(folders))
    return gone


def _remove_others(to: Path, wanted: set[Path]) -> None:
    """Remove what an earlier backup had and the database does not refer to any more."""
    for name in (*ADDED_TO, "policies", "models"):
        for path in (to / name).iterdir() if (to / name).is_dir() else ():
            if path not in wanted and not any(other.is_relative_to(path) for other in wanted):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_note(folder: Path, note: dict[str, object]) -> None:
    write_text(folder / NOTE, json.dumps(note, indent=2, ensure_ascii=False) + "\n")
