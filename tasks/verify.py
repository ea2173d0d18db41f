"""Verify: grade the answers of a batch against the gold answers that count now."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from reval_core.identity import digest
from reval_core.store import trajectories
from reval_core.store.trajectories import VERDICT_SCHEMA
from reval_core.verification import Grader
from tasks.commit import Commit
from tasks.references import Batch, Verdicts
from tasks.run import Here, Run
from tasks.stage import stage


def golds_digest(golds: pa.Table) -> str:
    """Digest of which gold answer counts for each problem of a batch."""
    pairs = zip(golds.column("problem_id").to_pylist(), golds.column("gold_digest").to_pylist(), strict=True)
    return digest("gls", sorted(set(pairs)))


def round_golds(here: Here) -> pa.Table:
    """(problem_id, gold_digest) of the problems that this iteration draws, each once."""
    return here.run.golds(sorted(set(here.problem_ids)))


def _inputs(here: Here, batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "verifier_id": here.run.grader.grader_id,
        "golds": golds_digest(round_golds(here)),
    }


# by key alone: a gold answer that was mended before the round was admitted is graded against anew
@stage("verify", reference=Verdicts, inputs=_inputs, historic=False)
def verify(here: Here, batch: Batch) -> Commit[Verdicts]:
    """Grade every response of the batch; verdicts are rows, a failure to grade is a status and never a bare 0."""
    return grade_batch(here.run, batch.batch_id, round_golds(here), here.run.grader)


def grade_batch(run: Run, batch_id: str, golds: pa.Table, grader: Grader) -> Commit[Verdicts]:
    """Grade a stored batch.

    Args:
        run: the worker's doors.
        batch_id: its responses are all in the store.
        golds: table (problem_id, gold_digest), each problem once.
        grader: the run's, or the one for evaluations.
    """
    with run.store.read() as connection:
        rows = trajectories.completions(connection, batch_id)
    items = [(run.problems[problem_id], text) for _, problem_id, text in rows]
    verdicts = grader.grade_batch(items)
    table = pa.Table.from_pylist(
        [
            {
                "trajectory_id": trajectory_id,
                "gold_digest": run.problems[problem_id].gold_digest,
                "status": verdict.status,
                "reward": verdict.reward,
                "answer": verdict.answer,
                "tier": verdict.tier,
                "seconds": verdict.seconds,
                "details": verdict.details,
            }
            for (trajectory_id, problem_id, _), verdict in zip(rows, verdicts, strict=True)
        ],
        schema=VERDICT_SCHEMA,
    )
    statuses = Counter(verdict.status for verdict in verdicts)
    verifier_id = grader.grader_id

    def write(connection: Any) -> None:
        trajectories.add_verdicts(connection, verifier_id, table)

    output = Verdicts(
        batch_id=batch_id,
        verifier_id=verifier_id,
        golds_digest=golds_digest(golds),
        correct=statuses["correct"],
        statuses=dict(sorted(statuses.items())),
    )
    return Commit(output, write)
