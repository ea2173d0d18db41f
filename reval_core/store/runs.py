"""Runs and their forks, and attempts at them.

A run's chain says whose rows its iterations are: its ancestors' up to each fork, then its own. Everything that
depends on history (links, window, schedule) is read along the chain, so a fork shares all rows before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from reval_core.process import ProcessIdentity
from reval_core.store import statements as sql
from reval_core.store.migrations import now


@dataclass(frozen=True)
class RunRecord:
    """A row of ``runs``."""

    run_id: str
    name: str
    config: Mapping[str, Any]
    config_id: str
    seed: int
    base_policy_id: str
    verifier_id: str
    versions: Mapping[str, Any]
    parent_run_id: str | None = None
    fork_iteration: int | None = None
    forced: Mapping[str, int] = field(default_factory=dict)
    """``stage@iteration`` to the generation that replaces it."""
    mlflow_run_id: str | None = None


def add(connection: duckdb.DuckDBPyConnection, run: RunRecord) -> None:
    """Record a new run and its chain."""
    sql.rows(connection, "runs", "add_run", **sql.parameters(run), created_at=now())
    sql.rows(
        connection,
        "runs",
        "add_chain",
        run_id=run.run_id,
        parent_run_id=run.parent_run_id,
        # the base policy is evaluated at iteration -1
        fork_iteration=-1 if run.fork_iteration is None else run.fork_iteration,
    )


def find(connection: duckdb.DuckDBPyConnection, run_id: str) -> RunRecord | None:
    """The run of that id, or None."""
    row = sql.record(connection, "runs", "run", run_id=run_id)
    if row is None:
        return None
    return RunRecord(**row | {name: json.loads(row[name]) for name in ("config", "versions", "forced")})


def of_config(connection: duckdb.DuckDBPyConnection, config_id: str) -> list[str]:
    """Runs of that configuration, the newest first."""
    return [row[0] for row in sql.rows(connection, "runs", "of_config", config_id=config_id)]


def set_config(connection: duckdb.DuckDBPyConnection, run_id: str, config: Mapping[str, Any]) -> None:
    """Take the configuration of the newest attempt for the run's: settings that are no identity may change."""
    sql.rows(connection, "runs", "set_config", run_id=run_id, config=json.dumps(config))


def set_mlflow_run(connection: duckdb.DuckDBPyConnection, run_id: str, mlflow_run_id: str) -> None:
    """Remember which MLflow run shows this run."""
    sql.rows(connection, "runs", "set_mlflow_run", run_id=run_id, mlflow_run_id=mlflow_run_id)


def running_attempts(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[int, ProcessIdentity]:
    """Attempts at the run whose end is not recorded; their process may be gone."""
    rows = sql.records(connection, "runs", "running_attempts", run_id=run_id)
    return {row.pop("attempt"): ProcessIdentity(**row) for row in rows}


def process_of(connection: duckdb.DuckDBPyConnection, flow_run_id: str) -> ProcessIdentity | None:
    """The process of the newest attempt that a flow run of Prefect made; None where it has made none."""
    row = sql.record(connection, "runs", "process_of", flow_run_id=flow_run_id)
    return None if row is None else ProcessIdentity(**row)


def start_attempt(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    process: ProcessIdentity,
    *,
    git_commit: str | None,
    versions: Mapping[str, Any],
    device: str,
    flow_run_id: str | None,
) -> int:
    """Record that the run is being worked on; attempts without an end whose process is gone are marked as crashed."""
    running = running_attempts(connection, run_id)
    others = [number for number, other in running.items() if other != process and other.is_alive()]
    row = sql.row(
        connection,
        "runs",
        "add_attempt",
        run_id=run_id,
        **sql.parameters(process),
        git_commit=git_commit,
        versions=json.dumps(dict(versions)),
        device=device,
        flow_run_id=flow_run_id,
        started_at=now(),
    )
    assert row is not None
    attempt = int(row[0])
    sql.rows(connection, "runs", "mark_dead", run_id=run_id, living=[*others, attempt])
    return attempt


def last_versions(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any] | None:
    """Versions that the newest attempt of the run ran under."""
    row = sql.row(connection, "runs", "last_versions", run_id=run_id)
    return json.loads(row[0]) if row else None


def set_log_path(connection: duckdb.DuckDBPyConnection, run_id: str, attempt: int, log_path: str) -> None:
    """Where the attempt's log file lies, relative to the root."""
    sql.rows(connection, "runs", "set_log_path", run_id=run_id, attempt=attempt, log_path=log_path)


def end_attempt(
    connection: duckdb.DuckDBPyConnection, run_id: str, attempt: int, status: str, message: str | None = None
) -> None:
    """Record how an attempt ended: completed, failed or cancelled."""
    sql.rows(
        connection,
        "runs",
        "end_attempt",
        run_id=run_id,
        attempt=attempt,
        status=status,
        message=message,
        ended_at=now(),
    )


def add_event(
    connection: duckdb.DuckDBPyConnection, run_id: str, attempt: int, iteration: int | None, kind: str, message: str
) -> None:
    """Record something worth knowing later."""
    sql.rows(
        connection,
        "runs",
        "add_event",
        run_id=run_id,
        attempt=attempt,
        iteration=iteration,
        kind=kind,
        message=message,
        recorded_at=now(),
    )


def messages(connection: duckdb.DuckDBPyConnection, run_id: str, kind: str) -> set[str]:
    """What the run's events of a kind say."""
    return {row[0] for row in sql.rows(connection, "runs", "messages", run_id=run_id, kind=kind)}
