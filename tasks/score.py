"""Score: two scalars of each trajectory under the reference, once, by the trainer's own forward pass."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.identity import digest
from reval_core.learning.batch import TrainingExample
from reval_core.learning.calibration import calibrate
from reval_core.store import replay, trajectories
from reval_core.store.trajectories import SCORE_SCHEMA
from tasks.commit import Commit
from tasks.references import Batch, Scores
from tasks.run import Here, Run
from tasks.stage import stage

log = logging.getLogger(__name__)

CALIBRATION_SAMPLES = 32
PART = 256
"""Trajectories that are scored before what is there is committed."""


def _inputs(here: Here, batch: Batch, reference: str) -> dict[str, Any]:
    return {"batch_id": batch.batch_id, "reference": reference, "scoring_id": here.run.scoring_id}


@stage("score", reference=Scores, inputs=_inputs)
def score(here: Here, batch: Batch, reference: str) -> Commit[Scores]:
    """log pi_ref and V_ref(s1) of the fresh batch."""
    with here.run.store.read() as connection:
        names = trajectories.batch_ids(connection, batch.batch_id)
    return _score(here, names, reference)


def _window(here: Here) -> list[str]:
    """The trajectories that this iteration's draws can reach, the fresh batch aside; an offline run has none."""
    run, newest = here.run, here.iteration - 1
    if run.config.offline is not None:
        newest = here.iteration
    with run.store.read() as connection:
        window = replay.window(connection, run.run_id, newest, run.config.window)
        entries = replay.entries_of(connection, run.run_id, window)
    return [entry.trajectory_id for entry in entries]


def _window_inputs(here: Here, reference: str) -> dict[str, Any]:
    return {"window": digest("win", _window(here)), "reference": reference, "scoring_id": here.run.scoring_id}


@stage("rescore", reference=Scores, inputs=_window_inputs)
def score_window(here: Here, reference: str) -> Commit[Scores]:
    """The whole window under a new reference: after a reset, or what an offline run begins with."""
    return _score(here, _window(here), reference)


def _score(here: Here, names: list[str], reference: str) -> Commit[Scores]:
    """Score in parts, each committed when it is there: a kill loses one part of a long window, not all of it.

    The last part is committed with the stage.
    """
    run = here.run

    def scored(table: pa.Table) -> Commit[Scores]:
        output = Scores(reference, run.scoring_id, len(names))
        return Commit(output, partial(_add, run, reference, table))

    last = scored(SCORE_SCHEMA.empty_table())
    for start in range(0, len(names), PART):
        part = names[start : start + PART]
        scores = run.policies.scores(
            part,
            reference,
            temperature=run.config.objective.policy_temperature,
            max_tokens=run.config.optimizer.max_tokens_per_micro_batch,
            packed=run.config.optimizer.packing,
        )
        rows = [{"trajectory_id": name, "logprob": pair[0], "root_value": pair[1]} for name, pair in scores.items()]
        table = pa.Table.from_pylist(rows, schema=SCORE_SCHEMA)
        last = scored(table)
        if start + len(part) < len(names):
            run.write(last)
        run.progress.step("score", start + len(part), len(names))
    return last


def _add(run: Run, reference: str, table: pa.Table, connection: duckdb.DuckDBPyConnection) -> None:
    trajectories.add_reference_scores(connection, reference, run.scoring_id, table)


def calibrate_reference(here: Here, reference: str, batch: Batch | None = None) -> None:
    """The self-test at every start and after each reset: with no reward, nothing moves. It is passed once an attempt.

    Args:
        here: the iteration that is under way.
        reference: its reference.
        batch: what to test on; by default the window so far, so that nothing is sampled before the test.

    Raises:
        LearningError: the policy's scoring path does not give the reference's own scores.
    """
    run = here.run
    if run.calibrated == reference:
        return
    with run.store.read() as connection:
        names = _window(here) if batch is None else trajectories.batch_ids(connection, batch.batch_id)
        names = names[:: max(1, len(names) // CALIBRATION_SAMPLES)][:CALIBRATION_SAMPLES]
        tokens = trajectories.tokens(connection, names)
    if not names:
        return
    scores = run.policies.scores(
        names,
        reference,
        temperature=run.config.objective.policy_temperature,
        max_tokens=run.config.optimizer.max_tokens_per_micro_batch,
        packed=run.config.optimizer.packing,
    )
    examples = [
        TrainingExample(
            trajectory_id=name,
            group_id=name,
            prompt_ids=tokens[name].prompt_ids,
            response_ids=tokens[name].response_ids,
            reward=0.0,
            ref_logprob=scores[name][0],
            ref_root_value=scores[name][1],
        )
        for name in names
    ]
    report = calibrate(
        run.policies.model(reference),
        examples,
        run.config.objective,
        run.config.optimizer,
        policy=run.policies.as_policy(reference),
        pad_id=run.pad_id,
        compute_dtype=run.config.model.dtype,
    )
    log.info(
        "calibration: residual without reward 0 in the same layout, %.2g nats against stored scalars", report.stored
    )
    run.calibrated = reference
