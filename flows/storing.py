"""Bodies of ``reval store``: figures, snapshots, vacuum, backup and restore."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.asking import READ_WAIT_S
from flows.opening import counted
from flows.terminal import unfolded
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import backup as backups
from reval_core.store import contents, snapshots, spool
from reval_core.store import statements as sql
from reval_core.store import vacuum as vacuuming
from reval_core.store.backup import Backup, Extent
from reval_core.store.connection import Connections, explain
from reval_core.store.files import Tally, size_of
from reval_core.store.space import size
from tasks.progress import Progress

UNLISTED = "(indexes, long texts)"
"""Blocks of the file that DuckDB lists under no table."""
WORTH = 0.1
"""Share of the database, or of the root, from which on something is worth shrinking."""
AGAIN = "may be deleted while no run goes on; the run's command, given again,"
ADVICE = {
    "payloads": "most are tokens and texts: `reval store archive` moves those that no run needs out of the database",
    "snapshot.duckdb": "snapshot.duckdb may be deleted; `reval store snapshot` or the next slow query makes it again",
    "policies": "a policy's folder may go: it is learned again when it is needed",
    "models": "models/ has base models that are made here; they are made again when they are needed",
    "backups": "backups/ has the database as it was before migrations; delete it once all is well",
    "reports": f"reports/ {AGAIN} writes its report again",
    "mlflow.db": f"mlflow.db {AGAIN} writes its figures again",
    "mlartifacts": "mlartifacts/ has copies of reports and configurations, for MLflow",
    "prefect": "prefect/ may be deleted while no run goes on: it is Prefect's history",
    "logs": "logs/ may be deleted",
}
"""What to do about what takes most."""


@dataclass(frozen=True)
class TableSize:
    """A table of the database, or what of the file belongs to none."""

    name: str
    rows: int | None
    bytes: int
    """Compressed, about: blocks that several tables share are divided among them."""
    share: float
    """Of the used blocks."""


@dataclass(frozen=True)
class SnapshotSize:
    """The published snapshot."""

    bytes: int
    age_s: float
    payloads: bool


@dataclass(frozen=True)
class Stats:
    """What a root holds; sizes in bytes."""

    root: str
    database_bytes: int
    log_bytes: int
    """DuckDB's write-ahead log: committed rows that are not yet in the file."""
    free_bytes: int
    """Inside the database file; written to before it grows."""
    tables: list[TableSize]
    snapshot: SnapshotSize | None
    waiting_parts: int
    """Files in the spool."""
    folders: dict[str, int]
    """Everything else under the root, by name."""
    hint: str
    """What would shrink it most."""


def measure(home: Home) -> Stats:
    """Measure what lies under a root.

    Raises:
        StoreError: there is no database, or it cannot be read.
    """
    database = home.database
    with Connections(database, lock_wait_s=READ_WAIT_S).read() as connection:
        rows, taken = contents.row_counts(connection), contents.table_bytes(connection)
        block_size, used, free = sql.rows(connection, "maintenance", "size")[0]
    whole = max(1, used * block_size)
    tables = [TableSize(name, rows[name], taken[name], taken[name] / whole) for name in rows]
    unlisted = used * block_size - sum(taken.values())
    tables.append(TableSize(UNLISTED, None, unlisted, unlisted / whole))
    log, snapshot = database.with_name(f"{database.name}.wal"), snapshots.path_of(database)
    ours = {database.name, log.name, snapshot.name}
    folders = {path.name: size_of(path) for path in sorted(home.root.iterdir()) if path.name not in ours}
    return Stats(
        root=str(home.root),
        database_bytes=size_of(database),
        log_bytes=size_of(log),
        free_bytes=free * block_size,
        tables=sorted(tables, key=lambda table: -table.bytes),
        snapshot=_snapshot(database),
        waiting_parts=len(spool.kept(home.root / "spool")),
        folders={name: taken for name, taken in folders.items() if taken},
        hint=_hint(
            size_of(database),
            free * block_size,
            {**folders, "payloads": taken["payloads"], snapshot.name: size_of(snapshot)},
        ),
    )


def _snapshot(database: Path) -> SnapshotSize | None:
    try:
        found = snapshots.find(database)
    except duckdb.Error as error:
        raise StoreError(explain(f"{snapshots.path_of(database)} cannot be read", error)) from error
    return SnapshotSize(size_of(found.path), found.age_s, found.payloads) if found else None


def _hint(database: int, free: int, others: dict[str, int]) -> str:
    """What would give back most, where it is worth it."""
    if free >= WORTH * database:
        return f"`reval store vacuum` gives back {size(free)}."
    name, takes = max(((name, takes) for name, takes in others.items() if name in ADVICE), key=lambda item: item[1])
    if takes < WORTH * (database + sum(others.values()) - others["payloads"]):
        return "Nothing stands out that could be smaller."
    return f"To shrink it, {size(takes)}: {ADVICE[name]}."


def show_stats(home: Home, console: Console, *, as_json: bool) -> None:
    """Print the figures as tables or as JSON."""
    found = measure(home)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    console = unfolded(console)
    console.print(f"root {found.root}", markup=False, soft_wrap=True)
    console.print(_tables(found))
    console.print()
    console.print(_places(found))
    console.print(f"\n{found.hint}", markup=False, soft_wrap=True)


def _tables(found: Stats) -> Table:
    table = Table("table", show_edge=False)
    for name in ("rows", "bytes", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.tables:
        rows = "" if row.rows is None else f"{row.rows:,}"
        table.add_row(row.name, rows, size(row.bytes), f"{row.share:.1%}")
    return table


def _places(found: Stats) -> Table:
    table = Table("under the root", show_edge=False)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("")
    free = f"{size(found.free_bytes)} of it free blocks, written to before it grows"
    table.add_row("reval.duckdb", size(found.database_bytes), free)
    table.add_row("reval.duckdb.wal", size(found.log_bytes), "committed rows that are not yet in the file")
    if found.snapshot is None:
        table.add_row("snapshot.duckdb", "", "none yet")
    else:
        with_payloads = "with" if found.snapshot.payloads else "without"
        age = f"{found.snapshot.age_s:,.0f} s old, {with_payloads} tokens and texts"
        table.add_row("snapshot.duckdb", size(found.snapshot.bytes), age)
    for name, taken in found.folders.items():
        waits = f"{counted(found.waiting_parts, 'part')} for the next start" if name == "spool" else ""
        table.add_row(escape(name), size(taken), waits)
    return table


def snapshot(home: Home, payloads: bool, progress: Progress) -> None:
    """Publish a snapshot and say where it is.

    Raises:
        StoreError: it cannot be written; the last one stays.
    """
    progress.say(f"root {home.root}")
    connections = Connections(home.database, lock_wait_s=READ_WAIT_S)
    with connections.read():
        pass  # without a database nothing is made in its place
    done = snapshots.publish(
        connections,
        payloads=payloads or None,
        progress=lambda share: progress.step("copying tokens and texts (percent)", round(100 * share), 100),
    )
    with_payloads = "with tokens and texts" if done.payloads else "without tokens and texts (--payloads copies them)"
    progress.say(f"{done.path}  {size(size_of(done.path))}, {done.age_s:.0f} s old, {with_payloads}")


def vacuum(home: Home, wait: bool, progress: Progress) -> None:
    """Rewrite the database and say what it gained.

    Raises:
        StoreError: a run is being worked on, there is no room, or the copy differs; the database is as it was.
    """
    progress.say(f"root {home.root}")
    began = time.monotonic()
    connections = Connections(home.database, lock_wait_s=READ_WAIT_S)
    with progress.waiting("rewriting the database"):
        done = vacuuming.vacuum(connections, wait=wait, say=progress.say)
    progress.say(
        f"reval.duckdb had {size(done.bytes_before)} and has {size(done.bytes_after)}; "
        f"{counted(done.rows, 'row')} compared, {time.monotonic() - began:.1f} s"
    )


def back_up(home: Home, dest: Path, progress: Progress, *, database_only: bool, everything: bool) -> None:
    """Copy the root and say what the copy has.

    Raises:
        ConfigError: both extents are asked for.
        StoreError: the folder is not one for a backup of this store, or cannot be written.
    """
    if database_only and everything:
        raise ConfigError("--database-only and --all exclude each other.")
    extent: Extent = "database" if database_only else "all" if everything else "root"
    progress.say(f"root {home.root}")
    began = time.monotonic()
    done, tally = backups.back_up(home, dest, extent=extent, step=progress.step)
    progress.say(f"backup {dest} of {done.taken_at}, verified, {time.monotonic() - began:.1f} s")
    _say_contents(done, tally, progress)
    progress.say(f"restore it: reval store restore {shlex.quote(str(dest))} --to ROOT")


def restore(source: Path, home: Home, progress: Progress) -> None:
    """Make a root from a backup and say what it has.

    Raises:
        StoreError: something stands in the root, or the source cannot be read.
    """
    note = backups.read_note(source) if source.is_dir() else None
    if note is not None:
        progress.say(f"{source} is a backup of {note.source}, taken at {note.taken_at}")
    done, tally = backups.restore(source, home, step=progress.step)
    progress.say(f"restored to {home.root}, verified")
    _say_contents(done, tally, progress)
    if note is not None and note.rows != done.rows:
        progress.say(f"  unlike {backups.NOTE}: {contents.difference(note.rows, done.rows)}; work went on in it")
    progress.say(f"go on: REVAL_HOME={shlex.quote(str(home.root))} reval runs")


def _say_contents(done: Backup, tally: Tally, progress: Progress) -> None:
    say, rows = progress.say, sum(done.rows.values())
    say(
        f"  database   {size(done.database_bytes)}, {counted(rows, 'row')}, "
        f"{counted(done.rows['trajectories'], 'response')}, schema version {done.schema_version}"
    )
    if done.extent == "database":
        say("  nothing else: policies and models are not in it")
    else:
        say(
            f"  files      {counted(tally.copied, 'file')} copied ({size(tally.copied_bytes)}), "
            f"{tally.unchanged:,} there already ({size(tally.unchanged_bytes)})"
        )
        say(f"  policies   {counted(len(done.folders), 'folder')}")
    for name in done.gone:
        say(f"  {name} is not there any more; the policy is learned again when it is needed")
    for name in done.outside:
        say(f"  {name} lies outside the root and is not in it: copy it yourself")
