"""Verify: grade the answers of a batch against the gold answers that count now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from reval_core.identity import digest
from reval_core.problems import Problem
from reval_core.store import trajectories
from reval_core.verification import Grader
from tasks.commit import Commit
from tasks.grading import failure_share, grade, refuse_failures
from tasks.references import Batch, Verdicts
from tasks.run import Here, Run
from tasks.stage import stage


def golds_digest(golds: pa.Table) -> str:
    """Digest of which gold answer counts for each problem of a batch."""
    pairs = zip(golds.column("problem_id").to_pylist(), golds.column("gold_digest").to_pylist(), strict=True)
    return digest("gls", sorted(set(pairs)))


def round_golds(here: Here) -> pa.Table:
    """(problem_id, gold_digest) of the problems that this iteration draws, each once."""
    return gold_table(here.run.problems, sorted(set(here.problem_ids)))


def gold_table(problems: Mapping[str, Problem], problem_ids: list[str]) -> pa.Table:
    """Table (problem_id, gold_digest) of the gold answers that count."""
    digests = [problems[problem_id].gold_digest for problem_id in problem_ids]
    return pa.table({"problem_id": pa.array(problem_ids, pa.string()), "gold_digest": pa.array(digests, pa.string())})


def _inputs(here: Here, batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "verifier_id": here.run.grader.grader_id,
        "golds": golds_digest(round_golds(here)),
    }


# by key until the round is admitted: a gold answer that was mended before is graded against anew, one after is not
@stage("verify", reference=Verdicts, inputs=_inputs, historic=False, settled_by="persist")
def verify(here: Here, batch: Batch) -> Commit[Verdicts]:
    """Grade every response of the batch; verdicts are rows, a failure to grade is a status and never a bare 0."""
    return grade_batch(here.run, batch.batch_id, here.run.problems, here.run.grader)


def grade_batch(run: Run, batch_id: str, problems: Mapping[str, Problem], grader: Grader) -> Commit[Verdicts]:
    """Grade a stored batch.

    Args:
        run: the worker's doors.
        batch_id: its responses are all in the store.
        problems: by id, with the gold answers that count here.
        grader: the run's, or the one for evaluations.

    Raises:
        VerificationError: more answers than allowed could not be graded. Their verdicts are rows to look at, but the
            stage is not done: the next start grades again and puts what it finds in their place.
    """
    with run.store.read() as connection:
        rows = trajectories.completions(connection, batch_id)
    table, verdicts = grade(rows, problems, grader)
    statuses = Counter(verdict.status for verdict in verdicts)
    verifier_id = grader.grader_id

    def write(connection: Any) -> None:
        trajectories.add_verdicts(connection, verifier_id, table)

    output = Verdicts(
        batch_id=batch_id,
        verifier_id=verifier_id,
        golds_digest=golds_digest(gold_table(problems, sorted({problem_id for _, problem_id, _ in rows}))),
        correct=statuses["correct"],
        statuses=dict(sorted(statuses.items())),
    )
    commit = Commit(output, write)
    if failure_share(verdicts) > run.config.reward.max_failure_share:
        run.write(commit)  # the rows, not the stage
    refuse_failures(f"batch {batch_id}", verdicts, run.config.reward.max_failure_share)
    return commit
