"""Which problems a run may draw, since when, and the order in which its rounds draw them.

An epoch is planned when its first problem is due, and shared along the chain. Problems that come into the sources while
a run is under way are drawn first, in an epoch that begins with the next round; so are those that came before and that
no round has drawn yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb
import pyarrow as pa

from reval_core.store import statements as sql


def unknown(connection: duckdb.DuckDBPyConnection, run_id: str, problem_ids: Collection[str]) -> list[str]:
    """Those of the problems that the run's sources have not had before; none for a run that has no problems yet."""
    if sql.row(connection, "schedule", "knows_problems", run_id=run_id) is None:
        return []
    part = _names(problem_ids)
    return [row[0] for row in sql.rows(connection, "schedule", "unknown_problems", {"part": part}, run_id=run_id)]


def welcome(connection: duckdb.DuckDBPyConnection, run_id: str, problem_ids: Collection[str]) -> list[str]:
    """Record what the sources have now; returns the problems that came in since the run, or its parent, was started."""
    first = sql.row(connection, "schedule", "knows_problems", run_id=run_id) is None
    now = 0 if first else int(sql.rows(connection, "schedule", "next_round", run_id=run_id)[0][0])
    part = _names(problem_ids if first else unknown(connection, run_id, problem_ids))
    if not part.num_rows:
        return []
    added = sql.rows(connection, "schedule", "add_problems", {"part": part}, run_id=run_id, since=now)
    return [] if first else sorted(name for name, since in added if since == now)


def since(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, int]:
    """The first round that may draw it, of every problem that the run's sources have had; above 0 for latecomers."""
    return dict(sql.rows(connection, "schedule", "since", run_id=run_id))


def drawn(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int) -> set[str]:
    """Problems that rounds before the iteration have drawn, along the chain."""
    return {row[0] for row in sql.rows(connection, "schedule", "drawn", run_id=run_id, iteration=iteration)}


def scheduled(connection: duckdb.DuckDBPyConnection, run_id: str, first: int, until: int) -> list[str]:
    """Problem ids of a slice of the schedule along the chain, in order."""
    rows = sql.rows(connection, "schedule", "scheduled", run_id=run_id, first_position=first, until_position=until)
    return [row[0] for row in rows]


def _names(problem_ids: Collection[str]) -> pa.Table:
    return pa.table({"problem_id": pa.array(sorted(problem_ids), pa.string())})


def planned_round(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int) -> list[str] | None:
    """Problem ids that the iteration draws, in order, or None when the round was not planned yet."""
    row = sql.record(connection, "schedule", "round", run_id=run_id, iteration=iteration)
    return None if row is None else scheduled(connection, run_id, row["first_position"], row["until_position"])


def schedule_state(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int) -> tuple[int, int, int]:
    """(first position of this iteration, positions planned so far, number of the next epoch)."""
    row = sql.record(connection, "schedule", "planned", run_id=run_id, iteration=iteration)
    assert row is not None
    return row["first_position"], row["reach"], row["next_epoch"]


def plan_epoch(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    epoch: int,
    first_position: int,
    problem_ids: Sequence[str],
) -> None:
    """Append an epoch's order of problems to the run's schedule."""
    order = pa.table(
        {"offset_": pa.array(range(len(problem_ids)), pa.int64()), "problem_id": pa.array(problem_ids, pa.string())}
    )
    sql.rows(
        connection,
        "schedule",
        "plan_epoch",
        {"epoch_order": order},
        run_id=run_id,
        first_position=first_position,
        epoch=epoch,
        iteration=iteration,
    )


def plan_round(
    connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, first_position: int, count: int
) -> list[str]:
    """Give the iteration the next ``count`` positions of the schedule, which must be planned already."""
    sql.rows(
        connection,
        "schedule",
        "add_round",
        run_id=run_id,
        iteration=iteration,
        first_position=first_position,
        until_position=first_position + count,
    )
    return scheduled(connection, run_id, first_position, first_position + count)
