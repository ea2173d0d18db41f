"""What `reval store archive` and `reval prune` show and do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows import asking
from flows.opening import counted
from flows.terminal import unfolded
from reval_core.config_files import load_config
from reval_core.errors import ConfigError
from reval_core.home import Home
from reval_core.policies import pruning
from reval_core.store import Store, archive
from reval_core.store.archive import TOKEN_BYTES, Moved
from reval_core.store.outside import Choice, Saved, outside
from reval_core.store.space import size
from tasks import prune
from tasks.progress import Progress
from tasks.prune import Plan, Rules, size_of

WAIT_S = 5.0
"""Seconds to wait for another process that archives or prunes."""


def archive_payloads(home: Home, choice: Choice, console: Console, *, drop: bool, dry_run: bool, yes: bool) -> None:
    """Show which payloads no run needs, then move them to Parquet files, or drop them.

    Raises:
        ConfigError: nobody can be asked whether to drop.
        StoreError: there is no such run, another process archives, or the disk takes nothing more.
    """
    store, choice = _store(home), _whole(home, choice)
    saved = _saved(home, store)
    with store.read() as connection:
        found = outside(connection, saved, choice)
        found = archive.droppable(connection, found) if drop else archive.in_database(found)
    _show_payloads(found, console)
    if not found.num_rows:
        console.print("Nothing to do: every payload that was asked for lies in a window, or is archived already.")
        return
    if dry_run:
        return
    if drop:
        _ask(f"Drop the tokens and texts of {counted(found.num_rows, 'response')} for good?", yes)
    done = _remove(home, store, choice, found, drop=drop)
    raw = size(done.tokens * TOKEN_BYTES)
    if drop:
        console.print(f"dropped {counted(done.payloads, 'payload')}, {raw} of tokens and text")
        if done.files:
            console.print(f"removed {counted(done.files, 'archive')} of {size(done.file_bytes)}")
    else:
        where = f"{counted(done.files, 'file')} of {size(done.file_bytes)} in {home.root / archive.FOLDER}"
        console.print(
            f"archived {counted(done.payloads, 'payload')}, {raw} of tokens and text: {where}",
            markup=False,
            soft_wrap=True,
        )
    _tell_of_vacuum(console)


def bring_back(home: Home, run: str | None, console: Console, *, dry_run: bool) -> None:
    """Put archived payloads back into the database."""
    store = _store(home)
    run_id = asking.find_run(store, run) if run is not None else None
    if dry_run:
        with store.read() as connection:
            found = archive.archived_payloads(connection, run_id)
        tokens = sum(found.column("tokens").to_pylist())
        console.print(
            f"{counted(found.num_rows, 'payload')} would come back, {size(tokens * TOKEN_BYTES)} of tokens and text"
        )
        return
    with archive.alone(store, WAIT_S), Progress() as progress:
        done = archive.bring_back(store, run_id, lambda n, total: progress.step("bring back", n, total))
    console.print(
        f"brought back {counted(done.payloads, 'payload')}, {size(done.tokens * TOKEN_BYTES)} of tokens and text; "
        f"removed {counted(done.files, 'file')} of {size(done.file_bytes)}",
        soft_wrap=True,
    )


def prune_root(home: Home, config: Path | None, console: Console, *, dry_run: bool, yes: bool) -> None:
    """Show what the rules would remove and what they keep, then remove it.

    Args:
        home: the root.
        config: a configuration whose rules hold for every run; None: each run's own.
        console: where it is shown.
        dry_run: only show.
        yes: ask nobody.
    """
    store = _store(home)
    rules: Rules = prune.rules_of(store)
    if config is not None:
        rules = dict.fromkeys(rules, load_config(config).retention)
    planned = prune.plan(home, store, rules)
    _show_plan(home, planned, console)
    if planned.is_empty:
        console.print("Nothing to remove: no rule of any run asks for more (`retention`, see docs/retention.md).")
        return
    if dry_run:
        return
    dropping = any(one.dropped for one in planned.payloads)
    if dropping or _is_asked():
        _ask("Remove it? Dropped payloads are gone for good." if dropping else "Remove it?", yes)
    with archive.alone(store, WAIT_S), Progress() as progress:
        done = prune.carry_out(home, store, rules, progress=progress.step)
    console.print(str(done))
    if planned.payloads:
        _tell_of_vacuum(console)


def _store(home: Home) -> Store:
    store = asking.store_of(home)
    if home.database.exists():
        store.prepare()
    return store


def _saved(home: Home, store: Store) -> Saved:
    with store.read() as connection:
        return pruning.as_saved(pruning.saved_policies(connection, home.root))


def _whole(home: Home, choice: Choice) -> Choice:
    """The choice with the whole id of its run."""
    if choice.run_id is None:
        return choice
    run_id = asking.find_run(asking.store_of(home), choice.run_id)
    return Choice(run_id, choice.after_rounds, choice.evaluations)


def _remove(home: Home, store: Store, choice: Choice, found: pa.Table, *, drop: bool) -> Moved:
    with archive.alone(store, WAIT_S), Progress() as progress:
        if drop:  # what is saved now: a run may have removed folders while somebody was asked
            return archive.drop(store, _saved(home, store), choice)
        return archive.archive(store, found, lambda n, total: progress.step("archive", n, total))


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not _is_asked():
        raise ConfigError("This removes tokens and texts for good, and there is no terminal to ask: add --yes.")
    typer.confirm(question, abort=True)


def _is_asked() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def _tell_of_vacuum(console: Console) -> None:
    console.print(
        "The database keeps its size, and fills the space again; `reval store vacuum` gives it back to the disk.",
        soft_wrap=True,
    )


def _show_payloads(found: pa.Table, console: Console) -> None:
    table = Table("run", "what", "rounds", "responses", "tokens", "bytes", show_edge=False)
    groups = found.group_by(["run_id", "purpose"]).aggregate(
        [("iteration", "min"), ("iteration", "max"), ("tokens", "count"), ("tokens", "sum")]
    )
    for row in groups.sort_by([("run_id", "ascending"), ("purpose", "descending")]).to_pylist():
        tokens = row["tokens_sum"]
        table.add_row(
            escape(str(row["run_id"])),
            row["purpose"],
            f"{row['iteration_min']} to {row['iteration_max']}",
            f"{row['tokens_count']:,}",
            f"{tokens:,}",
            size(tokens * TOKEN_BYTES),
        )
    if found.num_rows:
        unfolded(console).print(table)


def _show_plan(home: Home, planned: Plan, console: Console) -> None:
    console = unfolded(console)
    going = Table("goes", Column("path", no_wrap=True), "bytes", "why", show_edge=False)
    for one in planned.payloads:
        where = "dropped" if one.dropped else f"to {archive.FOLDER}/"
        rounds = pc.min_max(one.found.column("iteration")).as_py()
        what = f"{counted(one.found.num_rows, 'payload')} {where}"
        why = f"outside every window, rounds {rounds['min']} to {rounds['max']} of {one.run_id}"
        going.add_row(what, home.database.name, size(one.size), escape(why))
    for decision in planned.policies:
        if decision.goes:
            _add(going, home, _kind(decision), [decision.policy.folder], escape(decision.why))
    for files in planned.files:
        _add(going, home, f"{files.what} of {escape(files.run_id)}", files.paths, escape(files.why))
    if going.row_count:
        console.print(going)
    kept = Table("stays", Column("path", no_wrap=True), "bytes", "kept by", show_edge=False)
    for decision in planned.policies:
        if not decision.goes:
            _add(kept, home, _kind(decision), [decision.policy.folder], escape(decision.why))
    if kept.row_count and going.row_count:
        console.print()
    if kept.row_count:
        console.print(kept)


def _kind(decision: pruning.Decision) -> str:
    policy = decision.policy
    return f"{'checkpoint' if policy.whole else 'evaluated policy'}, round {policy.iteration}"


def _add(table: Table, home: Home, what: str, paths: Iterable[Path], why: str) -> None:
    first, *others = [str(path.relative_to(home.root)) for path in paths]
    shown = escape(first) + (f" and {len(others)} more" if others else "")
    table.add_row(what, shown, size(sum(size_of(path) for path in paths)), why)
