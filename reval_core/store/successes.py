"""Stored successes of a problem join an update that holds a group of it which is all wrong."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from reval_core.store import statements as sql
from reval_core.store.replay import Entry


def joined(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    updates: Sequence[Sequence[Entry]],
    most: int,
) -> list[list[Entry]]:
    """The updates, each followed by the successes that join it; no trajectory stands twice in an update.

    A group is all responses to a problem that were generated together; it is all wrong if none of them was admitted
    with a reward above 0, whichever of them the update holds. Each problem of which the update holds one of such a
    group brings its newest successes, whether they lie in the window or before it.

    Args:
        connection: of a read.
        run_id, iteration: what counts is what the run's chain admitted up to the iteration.
        updates: what each update is trained on.
        most: successes of one problem that join an update; 0: none.
    """
    if most == 0:
        return [list(update) for update in updates]
    where = {"run_id": run_id, "iteration": iteration}
    wanted = pa.table({"problem_id": sorted({entry.problem_id for update in updates for entry in update})})
    wrong = {name for (name,) in sql.rows(connection, "replay", "wrong_groups", {"wanted": wanted}, **where)}
    found = sql.table(connection, "replay", "successes", {"wanted": wanted}, **where, most=most).to_pylist()
    successes: dict[str, list[Entry]] = {}
    for row in found:
        successes.setdefault(row["problem_id"], []).append(Entry(**row))
    return [_joined(update, wrong, successes) for update in updates]


def _joined(update: Sequence[Entry], wrong: set[str], successes: dict[str, list[Entry]]) -> list[Entry]:
    problems = dict.fromkeys(entry.problem_id for entry in update if entry.group_id in wrong)
    held = {entry.trajectory_id for entry in update}
    joining = [entry for problem in problems for entry in successes.get(problem, [])]
    return [*update, *(entry for entry in joining if entry.trajectory_id not in held)]
