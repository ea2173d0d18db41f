"""Admit: what an offline run learns from becomes its replay buffer, with the rewards of this run's own verifier."""

from __future__ import annotations

from typing import Any

from reval_core.store import replay, selections
from reval_core.store.selections import Chosen
from reval_core.store.trajectories import GradedRow
from tasks.commit import Commit
from tasks.grading import gold_digests, grade_missing
from tasks.persist import entry_table, rewards
from tasks.references import Entries
from tasks.run import Here
from tasks.select import Selection
from tasks.stage import stage
from tasks.verify import gold_table, golds_digest


def _inputs(here: Here, selection: Selection) -> dict[str, Any]:
    run, reward = here.run, here.run.config.reward
    return {
        "run_id": run.run_id,
        "iteration": here.iteration,
        "selection": selections.selection_id(selection.trajectory_ids),
        "verifier_id": run.grader.grader_id,
        "golds": golds_digest(gold_table(run.problems, sorted(run.problems))),
        "transform": reward.transform,
        "truncated": reward.truncated,
    }


@stage("persist", reference=Entries, inputs=_inputs)
def admit(here: Here, selection: Selection) -> Commit[Entries]:
    """Grade what this run's verifier has not graded yet, and admit the selection in the order of its names."""
    run = here.run
    with run.store.read() as connection:
        chosen = selections.about(connection, selection.trajectory_ids)
    selections.check_tokenizer(chosen, run.base.tokenizer_id)
    grade_missing(run.store, chosen, run.problems, run.grader, run.progress, run.config.reward.max_failure_share)
    rows = _graded(here, chosen)
    admitted = sorted(rewards(rows, run.config.reward), key=lambda pair: pair[0].trajectory_id)
    table = entry_table(admitted)

    def write(connection: Any) -> None:
        replay.admit(connection, run.run_id, here.iteration, run.grader.grader_id, table)

    correct = sum(row.status == "correct" for row in rows)
    output = Entries(
        iteration=here.iteration,
        count=len(admitted),
        accuracy=None if run.config.reward.knows_no_wrong else correct / len(rows),
        reward=sum(reward for _, reward in admitted) / max(1, len(admitted)),
    )
    return Commit(output, write)


def _graded(here: Here, chosen: list[Chosen]) -> list[GradedRow]:
    """The selection with its verdicts; a group is a prompt's responses of one batch."""
    golds = gold_digests(chosen, here.run.problems)
    with here.run.store.read() as connection:
        found = selections.verdicts(connection, golds, here.run.grader.grader_id)
    return [
        GradedRow(
            trajectory_id=one.trajectory_id,
            problem_id=one.problem_id,
            group_id=f"{one.batch_id}/{one.problem_id}",
            sample_index=one.sample_index,
            truncated=one.truncated,
            gold_digest=golds[one.trajectory_id],
            status=found[one.trajectory_id][0],
            reward=found[one.trajectory_id][1],
            answer=found[one.trajectory_id][2],
        )
        for one in chosen
    ]
