"""The runs of a store: as a tree with what each fork changed, and two of them side by side."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.asking import find_run, store_of
from flows.opening import counted
from flows.terminal import unfolded
from reval_core.config import flatten
from reval_core.config_files import differences
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store
from reval_core.store.sqlfiles import statement

CHANGES = 4
"""Changed settings that the tree of runs shows of a fork; `diff_runs` shows all."""
FIGURES = {
    "rounds": "rounds_done",
    "responses": "trajectories",
    "tokens generated": "tokens_generated",
    "attempts": "attempts",
    "status": "status",
    "last policy": "last_policy_id",
}
"""What a comparison of runs shows, by column of the view ``runs``."""


def list_runs(home: Home, console: Console) -> None:
    """Runs in the order in which they were made, forks under their parents."""
    rows = store_of(home).query("SELECT * FROM runs ORDER BY created_at").to_pylist()
    if not rows:
        console.print("There is no run in this store yet. Start one: reval train configs/quickstart.yaml")
        return
    dead = _dead_runs(home)
    known = {row["run_id"] for row in rows}
    settings = {row["run_id"]: flatten(json.loads(row["config"])) for row in rows}
    told_forced = store_of(home).query("SELECT run_id, forced FROM store.runs").to_pylist()
    forced = {row["run_id"]: row["forced"] for row in told_forced}
    children: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        children[row["parent_run_id"] if row["parent_run_id"] in known else None].append(row)

    def show(row: dict[str, Any], depth: int) -> None:
        """A run, what it changed of its parent, and its own forks below it."""
        forked = f" from round {row['fork_iteration']}" if row["parent_run_id"] else ""
        status = "killed" if row["run_id"] in dead else row["status"] or "never started"
        console.print(
            f"{'   ' * (depth - 1) + '└─ ' if depth else ''}[bold]{escape(row['run_id'])}[/]{forked}  "
            f"{counted(row['rounds_done'], 'round')}, {counted(row['trajectories'], 'response')}, {status}, "
            f"{row['last_active_at']:%Y-%m-%d %H:%M} UTC",
            soft_wrap=True,
        )
        if row["parent_run_id"] in known:
            changed = differences(settings[row["parent_run_id"]], settings[row["run_id"]])
            told = [f"{key} {old} -> {new}" for key, (old, new) in list(changed.items())[:CHANGES]]
            more = f", {len(changed) - CHANGES} more" if len(changed) > CHANGES else ""
            told += [_done_anew(slot) for slot in json.loads(forced[row["run_id"]] or "{}")]
            console.print(f"{'   ' * depth}{escape(', '.join(told))}{more}", soft_wrap=True, style="dim")
        for child in children[row["run_id"]]:
            show(child, depth + 1)

    console.print(f"runs in {home.root}", markup=False, soft_wrap=True)
    for row in children[None]:
        show(row, 0)


def _done_anew(slot: str) -> str:
    """``generate@3`` in words."""
    stage, _, iteration = slot.partition("@")
    return f"round {iteration} sampled anew" if stage == "generate" else f"round {iteration} graded anew"


def _dead_runs(home: Home) -> set[str]:
    """Runs that are recorded as running by a process that is gone."""
    running = store_of(home).query(
        "SELECT run_id, pid, host, process_started FROM store.attempts WHERE status = 'running'"
    )
    return {
        row["run_id"]
        for row in running.to_pylist()
        if ProcessIdentity(row["pid"], row["host"], row["process_started"]).is_alive() is False
    }


def diff_runs(home: Home, one: str, other: str, console: Console) -> None:
    """Two runs side by side: how they are related, which settings differ, what came out.

    Raises:
        StoreError: no run, or several, begin so.
    """
    store = store_of(home)
    names = [find_run(store, one), find_run(store, other)]
    rows = [_row(store, name) for name in names]
    configs = [flatten(json.loads(row["config"])) for row in rows]
    changed = differences(*configs)
    table = Table("", *names, show_edge=False)
    for heading in table.columns:
        heading.overflow = "fold"
    for key, values in changed.items():
        table.add_row(key, *(_shown(value) for value in values))
    table.add_section()
    for label, column in FIGURES.items():
        table.add_row(label, *(_shown(row[column]) for row in rows))
    table.add_section()
    for label, cells in _evaluations(store, names).items():
        table.add_row(escape(label), *(cells.get(name, "") for name in names))
    unfolded(console).print(table)
    console.print(f"{counted(len(configs[0].keys() | configs[1].keys()) - len(changed), 'setting')} alike")
    for row, another in (rows, rows[::-1]):
        if row["parent_run_id"] == another["run_id"]:
            related = f"{row['run_id']} is a fork of {another['run_id']} from round {row['fork_iteration']}"
            console.print(related, soft_wrap=True)


def _row(store: Store, run_id: str) -> dict[str, Any]:
    (row,) = store.query("SELECT * FROM runs WHERE run_id = $run_id", run_id=run_id).to_pylist()
    return dict(row)


def _evaluations(store: Store, run_ids: list[str]) -> dict[str, dict[str, str]]:
    """``benchmark metric`` to run to the value of its newest evaluation, its interval, and the rounds learned then."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in store.query(statement("evaluations", "newest"), runs=run_ids).to_pylist():
        value, low, high = row["value"], row["low"], row["high"]
        shown = "-" if value is None else f"{value:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")
        after = counted(row["iteration"] + 1, "round")
        found[f"{row['benchmark']} {row['metric']}"][row["run_id"]] = f"{shown} after {after}"
    return dict(found)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else escape(str(value))
