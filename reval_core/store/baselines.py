"""Rewards relative to a baseline that is taken when a trajectory is used, not when it was admitted.

A group's mean that is subtracted once and for all is the mean of the policy of that day. Here the stored reward stays
as it is, and what is subtracted is a function of what the run's chain has admitted up to the iteration: it goes with
the policy, and an iteration that is planned again subtracts the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa

from reval_core.config_replay import ReplayConfig
from reval_core.store import statements as sql
from reval_core.store.replay import Entry


def relative(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    updates: Sequence[Sequence[Entry]],
    how: ReplayConfig,
) -> list[list[Entry]]:
    """The updates with rewards minus a baseline.

    Args:
        connection: of a read.
        run_id, iteration: what counts is what the run's chain admitted up to the iteration, the window aside.
        updates: what each update is trained on.
        how: its baseline ``problem`` subtracts the mean of all rewards of the entry's problem; ``round`` that of all
            rewards of the newest round, the same from every entry; ``none`` nothing. A share of the mean below 1 leaves
            right responses more to gain than wrong ones have to lose.
    """
    if how.baseline == "none":
        return [list(update) for update in updates]
    if how.baseline == "round":
        found = sql.rows(connection, "replay", "newest_rewards", run_id=run_id, iteration=iteration)
        mean = _mean([reward for (reward,) in found])
        means = {entry.problem_id: mean for update in updates for entry in update}
    else:
        wanted = pa.table({"problem_id": sorted({entry.problem_id for update in updates for entry in update})})
        rewards = sql.rows(
            connection, "replay", "problem_rewards", {"wanted": wanted}, run_id=run_id, iteration=iteration
        )
        means = {problem_id: _mean(of_problem) for problem_id, of_problem in rewards}
    return [
        [replace(entry, reward=entry.reward - how.baseline_share * means[entry.problem_id]) for entry in update]
        for update in updates
    ]


def _mean(rewards: Sequence[float]) -> float:
    """Exactly rounded, so that it does not depend on the order in which the database gives them."""
    return math.fsum(rewards) / max(1, len(rewards))
