"""What the rounds of a run would admit if they were graded now: by today's verifier, against the golds that count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reval_core.config import Config
from reval_core.identity import digest
from reval_core.problems import Problem
from reval_core.store import Store, replay, selections, trajectories
from reval_core.store import problems as stored_problems
from reval_core.verification import VERIFIER_VERSION, Grader
from tasks.inputs import read_problems
from tasks.persist import rewards
from tasks.progress import Progress
from tasks.regrade import regrade
from tasks.verify import gold_table

History = Mapping[tuple[int, str, str], dict[str, Any]]


@dataclass(frozen=True)
class Readmitted:
    """The first round whose rewards would be others."""

    iteration: int
    changed: int
    """Responses whose reward differs, or that are admitted in one of the two only."""
    graded_by: str
    """Digest of the verifier and of the gold answers of that round."""


def readmitted(
    config: Config,
    store: Store,
    run_id: str,
    history: History,
    rounds: Iterable[int],
    grader: Grader,
    progress: Progress,
) -> Readmitted | None:
    """Grade what this verifier has not graded of some rounds, and compare with what they admitted.

    Args:
        config: the run's.
        store: has the responses.
        run_id: whose rounds.
        history: its committed stages.
        rounds: in the order in which they are looked at.
        grader: the verifier of the configuration.
        progress: told how far the grading is.

    Returns:
        The first round that would admit something else; None where every reward stands.

    Raises:
        VerificationError: too many responses could not be graded.
    """
    told, _ = read_problems(config)
    with store.write() as connection:
        stored_problems.add(connection, list(told.values()))
        settings = {"extraction": config.reward.extraction, "policy": config.reward.policy, "args": config.reward.args}
        trajectories.add_verifier(connection, grader.grader_id, config.reward.use, VERIFIER_VERSION, settings)
    for iteration in rounds:
        batch_id = str(history[(iteration, "generate", "")]["batch_id"])
        problems = _graded(config, store, batch_id, grader, progress)
        golds = gold_table(problems, sorted(problems))
        with store.read() as connection:
            rows = trajectories.graded_rows(connection, batch_id, grader.grader_id, golds)
            before = replay.entries(connection, run_id, iteration)
        now = {row.trajectory_id: reward for row, reward in rewards(rows, config.reward)}
        then = {entry.trajectory_id: entry.reward for entry in before}
        changed = sum(now.get(name) != then.get(name) for name in now.keys() | then.keys())
        if changed:
            graded_by = digest("grd", [grader.grader_id, sorted((p, q.gold_digest) for p, q in problems.items())])
            return Readmitted(iteration, changed, graded_by)
    return None


def _graded(config: Config, store: Store, batch_id: str, grader: Grader, progress: Progress) -> dict[str, Problem]:
    """Every response of a batch graded against the gold answers that count; returns the problems that it asks."""
    with store.read() as connection:
        names = [row.trajectory_id for row in trajectories.batch_rows(connection, batch_id)]
        chosen = selections.about(connection, names)
        ids = [one.problem_id for one in chosen]
        problems = stored_problems.read(connection, ids, whole_row=config.reward.use != "math")
    regrade(store, chosen, problems, grader, progress, config.reward.max_failure_share)
    return problems
