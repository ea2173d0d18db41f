"""Evaluate: sample k answers to each problem of a benchmark and estimate accuracy with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from reval_core.evaluation.metrics import Estimate, bootstrap_ratio, summarise
from reval_core.identity import digest
from reval_core.problems import Problem
from reval_core.problems.arithmetic import steps_right
from reval_core.problems.benchmarks import benchmark_id
from reval_core.rollouts import SamplingSettings
from reval_core.store import evaluations, trajectories
from reval_core.store.trajectories import BatchRecord, GradedRow
from tasks import disk
from tasks.commit import Commit
from tasks.generate import batch_record, sample_batch
from tasks.references import Evaluated, Intervals
from tasks.run import Here, Run
from tasks.stage import stage
from tasks.verify import gold_table, grade_batch

SEED_KEY = "evaluation"
"""What seeds derive from beside evaluation.seed, problem and sample index: not the policy, so that two are compared
under the same noise, and not the other problems or gold answers, which may be mended in between."""


def settings(run: Run) -> SamplingSettings:
    """How evaluation responses are drawn: without budget or deadline, which are of training rounds."""
    config = run.config.evaluation
    return SamplingSettings(
        max_new_tokens=config.max_new_tokens or run.config.rollouts.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        stop_ids=run.renderer.stop_ids,
    )


def _batch(run: Run, policy_id: str, problems: list[Problem]) -> BatchRecord:
    config = run.config.evaluation
    return batch_record(
        run,
        policy_id,
        [run.renderer.render(problem) for problem in problems],
        purpose="evaluation",
        samples_per_prompt=config.samples_per_problem,
        settings=settings(run),
        seed=config.seed,
        round=0,
        generation=0,
    )


def _inputs(here: Here, policy_id: str, benchmark: str) -> dict[str, Any]:
    run = here.run
    problems = run.benchmarks[benchmark]
    return {
        "benchmark": benchmark,
        "benchmark_id": benchmark_id(problems),
        "batch_id": _batch(run, policy_id, problems).batch_id,
        "verifier_id": run.evaluation_graders[benchmark].grader_id,
    }


@stage("evaluate", reference=Evaluated, inputs=_inputs, historic=False)
def evaluate(here: Here, policy_id: str, benchmark: str) -> Commit[Evaluated]:
    """Sample, grade, estimate. Seeds do not depend on the policy, so two policies are compared under the same noise."""
    run = here.run
    problems = run.benchmarks[benchmark]
    prompts = [run.renderer.render(problem) for problem in problems]
    batch = _batch(run, policy_id, problems)
    if policy_id != run.base.policy_id:
        disk.check_policy(here, with_optimizer=False)
        run.policies.save(policy_id, run_id=run.run_id, iteration=here.iteration, with_optimizer=False)
    sample_batch(run, batch, prompts, settings(run), seed_key=SEED_KEY)
    by_id = {problem.problem_id: problem for problem in problems}
    golds = gold_table(by_id, list(by_id))
    run.write(grade_batch(run, batch.batch_id, by_id, run.evaluation_graders[benchmark]))
    with run.store.read() as connection:
        rows = trajectories.graded_rows(connection, batch.batch_id, run.evaluation_graders[benchmark].grader_id, golds)
        completions = {name: text for name, _, text in trajectories.completions(connection, batch.batch_id)}
    metrics = _metrics(rows, run.config.evaluation.samples_per_problem)
    if benchmark in ("arithmetic", "arithmetic-train"):
        metrics |= _right_by_right_steps(by_id, rows, completions)
    inputs = _inputs(here, policy_id, benchmark)
    evaluation_id = digest("evaluate", inputs)

    def write(connection: Any) -> None:
        """The evaluation's own rows."""
        evaluations.add(
            connection,
            evaluation_id=evaluation_id,
            policy_id=policy_id,
            benchmark=benchmark,
            benchmark_id=inputs["benchmark_id"],
            batch_id=batch.batch_id,
            verifier_id=run.evaluation_graders[benchmark].grader_id,
            problem_count=len(problems),
            samples_per_problem=run.config.evaluation.samples_per_problem,
            settings=_recorded_settings(run),
            metrics=metrics,
        )

    plain: Intervals = {name: (e.value, e.low, e.high) for name, e in metrics.items()}
    return Commit(Evaluated(evaluation_id, policy_id, benchmark, plain), write)


def _metrics(rows: list[GradedRow], k: int) -> dict[str, Estimate]:
    by_problem: dict[str, list[GradedRow]] = defaultdict(list)
    for row in rows:
        by_problem[row.problem_id].append(row)
    groups = [sorted(group, key=lambda row: row.sample_index) for group in by_problem.values()]
    correct = np.array([[row.status == "correct" for row in group] for group in groups])
    return summarise(correct, [[row.answer for row in group] for group in groups], k)


def _right_by_right_steps(
    problems: Mapping[str, Problem], rows: list[GradedRow], completions: dict[str, str]
) -> dict[str, Estimate]:
    """Share of the right answers whose shown steps are right as well; nothing where no answer is right."""
    shown: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.status == "correct":
            problem = problems[row.problem_id]
            shown[row.problem_id].append(steps_right(problem.question, completions[row.trajectory_id]))
    if not shown:
        return {}
    parts = np.array([sum(steps) for steps in shown.values()], float)
    wholes = np.array([len(steps) for steps in shown.values()], float)
    return {"right_by_right_steps": bootstrap_ratio(parts, wholes)}


def _recorded_settings(run: Run) -> dict[str, Any]:
    return {**settings(run).recorded(), "seed": run.config.evaluation.seed}


def current_evaluations(run: Run) -> list[dict[str, Any]]:
    """Metrics of the run's evaluations under the settings that hold now, by benchmark, metric and iteration."""
    if not run.benchmarks:
        return []
    with run.store.read() as connection:
        return evaluations.current(
            connection,
            run.run_id,
            settings=_recorded_settings(run),
            samples_per_problem=run.config.evaluation.samples_per_problem,
            verifier_ids=[grader.grader_id for grader in run.evaluation_graders.values()],
            benchmark_ids=[benchmark_id(problems) for problems in run.benchmarks.values()],
        )
