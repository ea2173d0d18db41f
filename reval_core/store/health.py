"""Breaches of the health rules as rows, and the figures that the rules are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from reval_core.health import Breach
from reval_core.store import statements as sql
from reval_core.store.migrations import now


def measured(
    connection: duckdb.DuckDBPyConnection, run_id: str, first: int, last: int, *, scoring_id: str
) -> list[dict[str, Any]]:
    """Figures of finished rounds along a run's chain, oldest first; None for what a round has not.

    Args:
        connection: an open one.
        run_id: the run.
        first, last: iterations, both included; those that are not finished are left out.
        scoring_id: how the run scores its reference.

    Returns:
        Of each round the columns of the view `rounds`, residual_spread and root_value_gap (units of the reward),
        all_wrong_share (0 to 1), staleness (rounds), engine_mismatch (nats per token).
    """
    figures = sql.table(connection, "health", "figures", run_id=run_id, first=first, last=last)
    given = {"figures": figures}
    wrong: dict[int, float] = dict(sql.rows(connection, "health", "all_wrong", given, run_id=run_id))
    mismatch: dict[int, float] = dict(sql.rows(connection, "health", "engine_mismatch", given, scoring_id=scoring_id))
    return [
        row | {"all_wrong_share": wrong.get(row["iteration"]), "engine_mismatch": mismatch.get(row["iteration"])}
        for row in figures.to_pylist()
    ]


def add(
    connection: duckdb.DuckDBPyConnection, run_id: str, attempt: int, iteration: int, found: Sequence[Breach]
) -> set[str]:
    """Record the breaches of a round; what is recorded already stays as it is.

    Returns:
        The metrics whose breach begins here: it is new, and the round before had none of this metric.
    """
    before = {row[0] for row in sql.rows(connection, "health", "seen", run_id=run_id, iteration=iteration - 1)}
    added = set()
    for breach in found:
        values = sql.parameters(breach)
        where = {"run_id": run_id, "attempt": attempt, "iteration": iteration, "recorded_at": now()}
        added |= {row[0] for row in sql.rows(connection, "health", "add", **where, **values)}
    return added - before


def summary(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    """Each metric that was out of bounds in a run, the latest first: rounds (how many), first, last, and of the last of
    them value, bound and action."""
    return sql.records(connection, "health", "summary", run_id=run_id)


def rounds(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    """The finished rounds of a run, oldest first, as the view `rounds` tells them."""
    return sql.records(connection, "health", "rounds", run_id=run_id)
