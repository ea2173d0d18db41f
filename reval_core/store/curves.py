"""What an experiment reads of the runs that it is made of."""

from __future__ import annotations

from typing import Any

import duckdb

from reval_core.store import statements as sql


def curve(connection: duckdb.DuckDBPyConnection, run_id: str, benchmark: str, metric: str) -> list[dict[str, Any]]:
    """A run's evaluations in order: rounds, response tokens generated, seconds of training, value, drift in nats."""
    return sql.records(connection, "experiments", "curve", run_id=run_id, benchmark=benchmark, metric=metric)


def pass_rates(connection: duckdb.DuckDBPyConnection, evaluation_id: str) -> dict[str, float]:
    """Question to the share of right responses to it, in the order of the problems' ids."""
    found = sql.records(connection, "experiments", "pass_rates", evaluation_id=evaluation_id)
    return {row["question"]: row["pass_rate"] for row in found}
