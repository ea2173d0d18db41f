"""Evaluations and their metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import duckdb

from reval_core.store import statements as sql
from reval_core.store.migrations import now


class Interval(Protocol):
    """A value with its 95 % interval; None where nothing was there to count."""

    @property
    def value(self) -> float | None:
        """Point estimate."""

    @property
    def low(self) -> float | None:
        """Lower end."""

    @property
    def high(self) -> float | None:
        """Upper end."""


def add(
    connection: duckdb.DuckDBPyConnection,
    *,
    evaluation_id: str,
    policy_id: str,
    benchmark: str,
    benchmark_id: str,
    batch_id: str,
    verifier_id: str,
    problem_count: int,
    samples_per_problem: int,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Interval],
) -> None:
    """Record an evaluation with its metrics; one that stands already stays."""
    sql.rows(
        connection,
        "evaluations",
        "add_evaluation",
        evaluation_id=evaluation_id,
        policy_id=policy_id,
        benchmark=benchmark,
        benchmark_id=benchmark_id,
        batch_id=batch_id,
        verifier_id=verifier_id,
        problem_count=problem_count,
        samples_per_problem=samples_per_problem,
        settings=json.dumps(dict(settings)),
        created_at=now(),
    )
    for metric, estimate in metrics.items():
        sql.rows(
            connection,
            "evaluations",
            "add_metric",
            evaluation_id=evaluation_id,
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
        )


def current(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    *,
    settings: Mapping[str, Any],
    samples_per_problem: int,
    verifier_id: str,
    benchmark_ids: list[str],
) -> list[dict[str, Any]]:
    """Metrics of a run's evaluations that were made under exactly these settings."""
    found = sql.table(
        connection,
        "evaluations",
        "current",
        run_id=run_id,
        settings=json.dumps(dict(settings)),
        samples_per_problem=samples_per_problem,
        verifier_id=verifier_id,
        benchmark_ids=benchmark_ids,
    )
    return found.to_pylist()
