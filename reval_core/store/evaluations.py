"""Evaluations and their metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb
import numpy as np

from reval_core.errors import StoreError
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
    verifier_ids: Sequence[str],
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
        verifier_ids=list(verifier_ids),
        benchmark_ids=benchmark_ids,
    )
    return found.to_pylist()


@dataclass(frozen=True)
class Samples:
    """The graded samples of one evaluation, problems in the order of their ids."""

    benchmark_id: str
    correct: np.ndarray
    """[n_problems, k] bool"""
    answers: list[list[str | None]]
    """[n_problems][k] extracted answers"""


def samples(connection: duckdb.DuckDBPyConnection, evaluation_id: str) -> Samples:
    """The samples of an evaluation with the newest verdicts of its verifier.

    Raises:
        StoreError: the store has no such evaluation, or not all of its verdicts.
    """
    rows = sql.records(connection, "evaluations", "samples", evaluation_id=evaluation_id)
    if not rows:
        raise StoreError(f"The store has no evaluation {evaluation_id}.")
    k = rows[0]["samples_per_problem"]
    if len(rows) != rows[0]["problem_count"] * k or any(row["status"] is None for row in rows):
        raise StoreError(f"The evaluation {evaluation_id} is not whole: evaluate the policy again.")
    answers = [row["answer"] for row in rows]
    return Samples(
        benchmark_id=rows[0]["benchmark_id"],
        correct=np.array([row["status"] == "correct" for row in rows]).reshape(-1, k),
        answers=[answers[start : start + k] for start in range(0, len(answers), k)],
    )


def most_different(connection: duckdb.DuckDBPyConnection, first: str, second: str, most: int) -> list[dict[str, Any]]:
    """Problems on which two evaluations differ most, two rows each: a response of the first, then one of the second.

    Args:
        connection: an open one.
        first, second: ids of evaluations of one benchmark.
        most: problems in each direction.

    Returns:
        Columns better (the second one is), first_share and second_share (of right samples), question, gold, and of the
        response completion, is_second, status, answer, tier, details, response_tokens, truncated.
    """
    return sql.records(connection, "evaluations", "most_different", first=first, second=second, most=most)


def settings(connection: duckdb.DuckDBPyConnection, evaluation_id: str) -> dict[str, Any]:
    """How an evaluation was sampled: samples_per_problem, and temperature, top_p, max_new_tokens, seed ...

    Raises:
        StoreError: the store has no such evaluation.
    """
    row = sql.row(connection, "evaluations", "settings", evaluation_id=evaluation_id)
    if row is None:
        raise StoreError(f"The store has no evaluation {evaluation_id}.")
    return {"samples_per_problem": row[0], **json.loads(row[1])}
