"""Grading of stored responses: verdicts are rows, and a failure to grade is a status and never a bare 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from reval_core.config import Config, RewardConfig
from reval_core.errors import VerificationError
from reval_core.problems import Problem
from reval_core.problems.benchmarks import benchmark_policy, registered
from reval_core.store import Store, selections, trajectories
from reval_core.store.selections import Chosen
from reval_core.store.trajectories import VERDICT_SCHEMA
from reval_core.verification import Grader, Verdict
from tasks.progress import Progress

PART = 1024
"""Responses that are graded before their verdicts are stored, where there are many."""


def grader_of(reward: RewardConfig) -> Grader:
    """The verifier, or reward of one's own, that a configuration names; a context manager."""
    return Grader(
        reward.use,
        reward.args,
        workers=reward.workers,
        timeout_s=reward.timeout_s,
        memory_gb=reward.memory_gb,
        extraction=reward.extraction,
        policy=reward.policy,
    )


def benchmark_rewards(config: Config) -> dict[str, RewardConfig]:
    """By what each benchmark is graded: mathematics, whatever is learned from, by the run's policy and its own."""
    return {name: _benchmark_reward(config, name) for name in config.evaluation.benchmarks}


def _benchmark_reward(config: Config, name: str) -> RewardConfig:
    chosen, known = config.evaluation, registered(name)
    extraction = known.extraction if known and known.extraction else chosen.extraction
    policy = {**config.reward.policy, **benchmark_policy(name), **chosen.policies.get(name, {})}
    return config.reward.model_copy(update={"use": "math", "args": {}, "extraction": extraction, "policy": policy})


def grade(
    rows: Sequence[tuple[str, str, str]], problems: Mapping[str, Problem], grader: Grader
) -> tuple[pa.Table, list[Verdict]]:
    """Verdicts of (trajectory_id, problem_id, completion) rows, as a table of `VERDICT_SCHEMA` too."""
    verdicts = grader.grade_batch([(problems[problem_id], text) for _, problem_id, text in rows])
    table = pa.Table.from_pylist(
        [
            {
                "trajectory_id": trajectory_id,
                "gold_digest": problems[problem_id].gold_digest,
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
    return table, verdicts


def grade_missing(
    store: Store,
    chosen: Sequence[Chosen],
    problems: Mapping[str, Problem],
    grader: Grader,
    progress: Progress,
    most: float,
) -> int:
    """Grade what the verifier has no verdict of, in parts that are stored as they are done; returns how many.

    Args:
        store: has the responses.
        chosen: which.
        problems: by id, with the gold answers that count.
        grader: the verifier.
        progress: told how far it is.
        most: share of failures that is allowed in a part.

    Raises:
        VerificationError: more of a part could not be graded. Its verdicts are rows; the next time grades them again.
    """
    with store.read() as connection:
        known = selections.verdicts(connection, gold_digests(chosen, problems), grader.grader_id)
    missing = [one for one in chosen if known.get(one.trajectory_id, ("error",))[0] in ("timeout", "error")]
    for start in range(0, len(missing), PART):
        part = missing[start : start + PART]
        with store.read() as connection:
            texts = selections.completions(connection, [one.trajectory_id for one in part])
        table, verdicts = grade(
            [(one.trajectory_id, one.problem_id, texts[one.trajectory_id]) for one in part], problems, grader
        )
        with store.write() as connection:
            trajectories.add_verdicts(connection, grader.grader_id, table)
        refuse_failures("the selection", verdicts, most)
        progress.step("verify", start + len(part), len(missing))
    return len(missing)


def gold_digests(chosen: Sequence[Chosen], problems: Mapping[str, Problem]) -> dict[str, str]:
    """trajectory_id to the digest of the gold answer that counts."""
    return {one.trajectory_id: problems[one.problem_id].gold_digest for one in chosen}


def failure_share(verdicts: Sequence[Verdict]) -> float:
    """Share of answers that could not be graded: timeouts and errors."""
    failed = sum(verdict.status in ("timeout", "error") for verdict in verdicts)
    return failed / max(1, len(verdicts))


def refuse_failures(where: str, verdicts: Sequence[Verdict], most: float) -> None:
    """Stop when more answers than allowed could not be graded.

    Raises:
        VerificationError: says how many, and how to see them.
    """
    if failure_share(verdicts) <= most:
        return
    failed = [verdict for verdict in verdicts if verdict.status in ("timeout", "error")]
    raise VerificationError(
        f"{len(failed)} of {len(verdicts)} answers of {where} could not be graded (timeout or error), more than "
        f"reward.max_failure_share = {most:g}. The first: {failed[0].status}, {failed[0].details}. All: reval sql "
        "\"select status, details, count(*) from verdicts where status in ('timeout', 'error') group by all\". Mend "
        "the reward or raise its limits, then start again: the stored responses are graded anew."
    )
