"""What a start from outside means by "latest" and "best", told once and kept, so that its retry means the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from reval_core.store import statements as sql
from reval_core.store.migrations import now


@dataclass(frozen=True)
class Best:
    """The policy that did best at a benchmark."""

    run_id: str
    iteration: int
    """The round that gave it; -1 for a base policy."""
    policy_id: str
    value: float


def latest_run(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """The training run of that name that was started last."""
    row = sql.row(connection, "places", "latest_run", name=name)
    return None if row is None else str(row[0])


def latest_policy(connection: duckdb.DuckDBPyConnection, name: str | None = None) -> str | None:
    """The newest saved policy, of the runs of that name where one is given."""
    row = sql.row(connection, "places", "latest_policy", name=name)
    return None if row is None else str(row[0])


def best(connection: duckdb.DuckDBPyConnection, name: str, benchmark: str, metric: str) -> Best | None:
    """The policy of a run of that name with the highest value, such as avg@16, at a benchmark."""
    row = sql.record(connection, "places", "best", name=name, benchmark=benchmark, metric=metric)
    return None if row is None else Best(row["run_id"], row["iteration"], row["policy_id"], row["value"])


def meant(connection: duckdb.DuckDBPyConnection, flow_run_id: str) -> dict[str, Any] | None:
    """What the flow run meant when it first began; None for one that begins now."""
    row = sql.row(connection, "places", "start", flow_run_id=flow_run_id)
    return None if row is None else dict(json.loads(row[0]))


def add_start(
    connection: duckdb.DuckDBPyConnection,
    flow_run_id: str,
    flow: str,
    asked: Mapping[str, Any],
    meaning: Mapping[str, Any],
) -> None:
    """Record what a flow run was asked for and what that stands for."""
    sql.rows(
        connection,
        "places",
        "add_start",
        flow_run_id=flow_run_id,
        flow=flow,
        asked=json.dumps(dict(asked), default=str),
        meant=json.dumps(dict(meaning)),
        recorded_at=now(),
    )
