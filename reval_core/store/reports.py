"""What a report reads of a run beside the public views: small tables, each along the run's chain."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.store import statements as sql


def created_at(connection: duckdb.DuckDBPyConnection, run_id: str) -> datetime:
    """When the run was made, UTC.

    Raises:
        StoreError: there is no such run.
    """
    row = sql.row(connection, "reports", "created_at", run_id=run_id)
    if row is None:
        raise StoreError(f"The store has no run {run_id}.")
    return row[0]


def lengths(connection: duckdb.DuckDBPyConnection, run_id: str) -> pa.Table:
    """By round, in tokens: length_mean, length_low, length_high (10, 90 %), right_mean, wrong_mean; truncated_share."""
    return sql.table(connection, "reports", "lengths", run_id=run_id)


def calibration(connection: duckdb.DuckDBPyConnection, run_id: str, beta: float) -> pa.Table:
    """By round, apart for rewarded responses (right) and others (wrong): the reward, and what the logits stand for.

    Args:
        connection: an open one.
        run_id: the run.
        beta: of its objective.

    Returns:
        Columns iteration, and for right and wrong: reward, mean, low, high (10 % and 90 %) in units of the reward; NULL
        where the objective has no log-ratio or no root value.
    """
    return sql.table(connection, "reports", "calibration", run_id=run_id, beta=beta)


def timeline(connection: duckdb.DuckDBPyConnection, run_id: str) -> pa.Table:
    """Executed stages: iteration, stage, seconds, start (seconds since the first began)."""
    return sql.table(connection, "reports", "timeline", run_id=run_id)


def stages(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    """Of each stage how often it was executed and found done, and its seconds; the longest first."""
    return sql.records(connection, "reports", "stages", run_id=run_id)


def tokens(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Sums over the run: responses, generated and learned tokens, members of updates, seconds of both stages."""
    found = sql.record(connection, "reports", "tokens", run_id=run_id)
    assert found is not None  # sums of nothing are a row too
    return found


def attempts(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    """Attempts at the run in order: attempt, status, started_at (UTC, text), seconds, device, message."""
    return sql.records(connection, "reports", "attempts", run_id=run_id)


def events(connection: duckdb.DuckDBPyConnection, run_id: str, most: int) -> list[dict[str, Any]]:
    """Newest notable events of the run: iteration, kind, message, recorded_at (UTC)."""
    return sql.records(connection, "reports", "events", run_id=run_id, most=most)


def newest_responses(
    connection: duckdb.DuckDBPyConnection, run_id: str, most: int, rounds: int = 20
) -> list[dict[str, Any]]:
    """Responses of three kinds, so many of each at most: best and worst of the newest round, and failed gradings.

    Args:
        connection: an open one.
        run_id: the run.
        most: of each kind.
        rounds: newest ones in which failed gradings are looked for.
    """
    return sql.records(connection, "reports", "newest_responses", run_id=run_id, most=most, rounds=rounds)
