"""Learn: K updates from the fresh batch and the replay window make the next policy."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from reval_core.learning.learner import UpdateReport
from reval_core.policies.steps import learning_settings
from reval_core.store import baselines, lineage, replay, successes
from reval_core.store.lineage import UPDATE_ROW_SCHEMA, Draw, LearningStep, PlannedUpdate, UpdateRecord
from reval_core.store.replay import Entry
from tasks import disk
from tasks.commit import Commit
from tasks.references import Learned
from tasks.run import Here
from tasks.stage import stage


def plan(here: Here, policy_id: str, reference: str | None) -> LearningStep:
    """What the round's updates are trained on: the fresh batch first, then draws from the window.

    An offline run has no fresh batch: all its updates are draws.
    """
    if (policy_id, reference) not in here.planned:
        here.planned[policy_id, reference] = _plan(here, policy_id, reference)
    return here.planned[policy_id, reference]


def _plan(here: Here, policy_id: str, reference: str | None) -> LearningStep:
    run, config = here.run, here.run.config
    made = config.objective.updates
    on_policy, off_policy = (made.on_policy, made.off_policy) if config.offline is None else (0, made.total)
    with run.store.read() as connection:
        fresh = replay.entries(connection, run.run_id, here.iteration) if config.offline is None else []
        drawn = replay.draw(
            connection,
            run.run_id,
            here.iteration,
            config.window,
            size=len(fresh) or config.batch_size,
            seed=config.run.seed,
            updates=range(off_policy),
            whole_groups="group" in run.objective.needs,
        )
        used = [fresh] * on_policy + drawn
        used = successes.joined(connection, run.run_id, here.iteration, used, config.replay.successes)
        used = baselines.relative(connection, run.run_id, here.iteration, used, config.replay)
        before = lineage.policy(connection, policy_id).updates_done
    kinds = ["fresh"] * on_policy + ["replay"] * off_policy
    updates = [_planned(kind, entries) for kind, entries in zip(kinds, used, strict=True)]
    return LearningStep(
        parent_policy_id=policy_id,
        reference_policy_id=reference,
        settings=learning_settings(config.objective, config.optimizer, config.model.dtype, config.model.lora),
        updates_before=before,
        updates=tuple(update for update in updates if update.draws),
    )


def _planned(kind: str, entries: list[Entry]) -> PlannedUpdate:
    return PlannedUpdate(kind, tuple(Draw(e.trajectory_id, e.reward, e.weight, e.group_id) for e in entries))


def _inputs(here: Here, policy_id: str, reference: str | None) -> dict[str, Any]:
    return {"policy_id": plan(here, policy_id, reference).policy_id}


@stage("learn", reference=Learned, inputs=_inputs)
def learn(here: Here, policy_id: str, reference: str | None) -> Commit[Learned]:
    """Make the round's updates, the fresh batch first, and record what each was trained on."""
    run = here.run
    step = plan(here, policy_id, reference)
    if not step.updates:
        run.event("no updates", "every response was dropped and the window is empty; the policy stays", here.iteration)
        return Commit(Learned(policy_id, reference, run.policies.checksum(policy_id), 0, 0))
    disk.check_exchange(here)
    record, reports = run.policies.learn(step)
    skipped = sum(report.skipped for report in reports)
    if skipped:
        run.event("skipped updates", f"{skipped} of {len(reports)} updates were not finite", here.iteration)

    def write(connection: Any) -> None:
        """The policy, its updates and their members."""
        lineage.add_policy(connection, record, run_id=run.run_id, attempt=run.attempt)
        used = lineage.uses(connection, policy_id, lineage.trajectory_ids(step.updates))
        made = [
            UpdateRecord(
                index=index,
                kind=update.kind,
                loss=_finite(report.loss),
                grad_norm=_finite(report.grad_norm),
                lr=report.lr,
                skipped=report.skipped,
                tokens=report.n_tokens,
                rows=_rows(update, report),
            )
            for index, (update, report) in enumerate(zip(step.updates, reports, strict=True))
        ]
        lineage.add_updates(connection, step.policy_id, made, used)

    return Commit(Learned(step.policy_id, reference, record.weights_checksum, len(reports), skipped), write)


def _rows(update: PlannedUpdate, report: UpdateReport) -> pa.Table:
    columns = {
        "position": range(len(update.draws)),
        "trajectory_id": [draw.trajectory_id for draw in update.draws],
        "reward": [draw.reward for draw in update.draws],
        "weight": [draw.weight for draw in update.draws],
        "residual": [_finite(value) for value in report.residual.tolist()],
        "log_ratio": [_finite(value) for value in report.log_ratio.tolist()],
        "root_value_gap": [_finite(value) for value in report.root_gap.tolist()],
    }
    return pa.table(columns, schema=UPDATE_ROW_SCHEMA)


def _finite(value: float) -> float | None:
    """NULL in the store for what an objective has not, or what was not finite."""
    return value if math.isfinite(value) else None
