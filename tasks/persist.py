"""Persist: turn verdicts into the rewards that learning uses, and admit the batch to the run's replay buffer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa

from reval_core.config import RewardConfig
from reval_core.store import replay, trajectories
from reval_core.store.trajectories import GradedRow
from tasks.commit import Commit
from tasks.references import Batch, Entries, Verdicts
from tasks.run import Here
from tasks.stage import stage
from tasks.verify import round_golds


def rewards(rows: list[GradedRow], config: RewardConfig) -> list[tuple[GradedRow, float]]:
    """The frozen reward of each admitted response.

    Rewards are transformed within the batch in which they were generated and never again: a group's mean is the mean of
    the policy that sampled it. Dropped responses leave their group before the mean is taken.
    """
    if config.truncated == "drop":
        rows = [row for row in rows if not row.truncated]
    wrong = config.truncated == "mask_negative"
    raw = [0.0 if wrong and row.truncated else row.reward for row in rows]
    if config.transform == "raw":
        return list(zip(rows, raw, strict=True))
    if config.transform == "centred":
        groups: dict[str, list[float]] = defaultdict(list)
        for row, reward in zip(rows, raw, strict=True):
            groups[row.group_id].append(reward)
        means = {name: sum(values) / len(values) for name, values in groups.items()}
        return [(row, reward - means[row.group_id]) for row, reward in zip(rows, raw, strict=True)]
    low = -1.0 if config.transform == "signed" else 0.0
    return [(row, 1.0 if reward > 0 else low) for row, reward in zip(rows, raw, strict=True)]


def entry_table(admitted: list[tuple[GradedRow, float]]) -> pa.Table:
    """Responses with their rewards, in the order of their positions, as a table of `replay.ENTRY_SCHEMA`."""
    rows = [
        {
            "position": position,
            "trajectory_id": row.trajectory_id,
            "gold_digest": row.gold_digest,
            "reward_used": reward,
        }
        for position, (row, reward) in enumerate(admitted)
    ]
    return pa.Table.from_pylist(rows, schema=replay.ENTRY_SCHEMA)


def _inputs(here: Here, batch: Batch, verdicts: Verdicts) -> dict[str, Any]:
    reward = here.run.config.reward
    return {
        "run_id": here.run.run_id,
        "iteration": here.iteration,
        "batch_id": batch.batch_id,
        "verifier_id": verdicts.verifier_id,
        "golds": verdicts.golds_digest,
        "transform": reward.transform,
        "truncated": reward.truncated,
    }


@stage("persist", reference=Entries, inputs=_inputs)
def persist(here: Here, batch: Batch, verdicts: Verdicts) -> Commit[Entries]:
    """Admit the graded batch, in its canonical order. Its rows are the run's own, so run and iteration are inputs."""
    run = here.run
    with run.store.read() as connection:
        rows = trajectories.graded_rows(connection, batch.batch_id, verdicts.verifier_id, round_golds(here))
    admitted = rewards(rows, run.config.reward)
    table = entry_table(admitted)

    def write(connection: Any) -> None:
        replay.admit(connection, run.run_id, here.iteration, verdicts.verifier_id, table)

    output = Entries(
        iteration=here.iteration,
        count=len(admitted),
        accuracy=None if run.config.reward.knows_no_wrong else verdicts.correct / max(1, len(rows)),
        reward=sum(reward for _, reward in admitted) / max(1, len(admitted)),
    )
    return Commit(output, write)
