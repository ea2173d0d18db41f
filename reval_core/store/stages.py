"""Committed stages, their links to runs, and the leases that fence writers.

The table ``stages`` is the only judge of what is done. A lease is an epoch, not a clock: whoever takes it raises the
epoch, and a commit is refused when the epoch is no longer its own. So a zombie attempt can compute, but not write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from reval_core.errors import LeaseLost
from reval_core.process import ProcessIdentity
from reval_core.store import statements as sql
from reval_core.store.migrations import now


@dataclass(frozen=True)
class Lease:
    """The right to write one stage."""

    stage_key: str
    epoch: int


def find(connection: duckdb.DuckDBPyConnection, stage_key: str) -> dict[str, Any] | None:
    """The output of a committed stage, or None."""
    row = sql.row(connection, "stages", "find", stage_key=stage_key)
    return json.loads(row[0]) if row else None


def holder(connection: duckdb.DuckDBPyConnection, stage_key: str) -> ProcessIdentity | None:
    """The process that last took the stage's lease and has not ended it, or None."""
    row = sql.record(connection, "stages", "lease_holder", stage_key=stage_key)
    if row is None or not row["pid"]:
        return None
    return ProcessIdentity(row["pid"], row["host"], row["process_started"])


def take_lease(connection: duckdb.DuckDBPyConnection, stage_key: str, me: ProcessIdentity) -> Lease:
    """Take the lease, from whomever: every earlier one can no longer commit."""
    row = sql.row(connection, "stages", "take_lease", stage_key=stage_key, **sql.parameters(me))
    assert row is not None
    return Lease(stage_key, int(row[0]))


def commit(
    connection: duckdb.DuckDBPyConnection,
    lease: Lease,
    stage: str,
    inputs: Mapping[str, Any],
    output: Mapping[str, Any],
    *,
    seconds: float,
    run_id: str | None,
    attempt: int | None,
) -> None:
    """Write the row that makes a stage done, in the transaction of its last content rows, and end the lease.

    Raises:
        LeaseLost: another attempt took the stage over; the caller's transaction must be rolled back.
    """
    check_lease(connection, lease)
    sql.rows(
        connection,
        "stages",
        "commit",
        stage_key=lease.stage_key,
        stage=stage,
        inputs=json.dumps(dict(inputs)),
        output=json.dumps(dict(output)),
        seconds=seconds,
        run_id=run_id,
        attempt=attempt,
        committed_at=now(),
    )
    end_lease(connection, lease)


def check_lease(connection: duckdb.DuckDBPyConnection, lease: Lease) -> None:
    """Raise `LeaseLost` unless the lease is still the newest."""
    row = sql.record(connection, "stages", "lease_holder", stage_key=lease.stage_key)
    if row is None or row["epoch"] != lease.epoch:
        who = f"process {row['pid']} on {row['host']}" if row and row["pid"] else "another attempt, which has finished"
        raise LeaseLost(f"The stage {lease.stage_key} was taken over by {who}; this attempt's result is dropped.")


def end_lease(connection: duckdb.DuckDBPyConnection, lease: Lease) -> None:
    """Give the lease back if it is still ours."""
    sql.rows(connection, "stages", "end_lease", **sql.parameters(lease))


def link(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    stage: str,
    slot: str,
    stage_key: str,
    *,
    executed: bool,
    attempt: int,
) -> None:
    """Record that a committed stage stands at an iteration of a run; a link that exists stays as it is."""
    sql.rows(
        connection,
        "stages",
        "link",
        run_id=run_id,
        iteration=iteration,
        stage=stage,
        slot=slot,
        stage_key=stage_key,
        executed=executed,
        attempt=attempt,
        linked_at=now(),
    )


def history(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[tuple[int, str, str], dict[str, Any]]:
    """(iteration, stage, slot) to output, for every committed stage of the run's chain."""
    rows = sql.records(connection, "stages", "history", run_id=run_id)
    return {(row["iteration"], row["stage"], row["slot"]): json.loads(row["output"]) for row in rows}


def rounds_done(history: Mapping[tuple[int, str, str], Any]) -> int:
    """Iterations whose policy is committed, without a gap."""
    done = 0
    while (done, "learn", "") in history:
        done += 1
    return done
