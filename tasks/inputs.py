"""What a run reads from outside before anything is made: its training problems and its benchmarks."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from reval_core.config import Config
from reval_core.problems import Problem, load_problems
from reval_core.problems.benchmarks import load_benchmark
from reval_core.problems.problem import once_each
from reval_core.verification import check_gold

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Problems as they stand in their files now."""

    problems: dict[str, Problem]
    """Training problems by id."""
    weights: dict[str, float]
    """How often each of them comes in an epoch."""
    benchmarks: dict[str, list[Problem]]
    """Problems of each configured benchmark, by its name; empty for a run that is never evaluated."""

    @property
    def all(self) -> list[Problem]:
        """Every problem that the run may ask."""
        return [*self.problems.values(), *(problem for found in self.benchmarks.values() for problem in found)]


def read_inputs(config: Config, *, training: bool = True) -> Inputs:
    """Read every problem file that the configuration names.

    Args:
        config: the run's configuration.
        training: whether the training problems are needed, too.

    Raises:
        RevalError: a file is missing or malformed, or a gold answer cannot be graded against.
    """
    problems, weights = read_problems(config) if training else ({}, {})
    return Inputs(problems, weights, read_benchmarks(config))


def read_problems(config: Config) -> tuple[dict[str, Problem], dict[str, float]]:
    """Training problems by id, and how often each comes in an epoch; of two gold answers the first counts."""
    gold_check = check_gold if config.reward.use == "math" else None
    loaded: list[Problem] = []
    weights: dict[str, float] = {}
    for source in config.problems:
        for problem in load_problems(source, gold_check):
            loaded.append(problem)
            weights[problem.problem_id] = max(weights.get(problem.problem_id, 0.0), source.weight)
    problems, contradicted = once_each(loaded)
    if contradicted:
        log.warning(
            "the problem files have two gold answers for the same question, %d times; the first one counts: %s",
            len(contradicted),
            contradicted[0],
        )
    return problems, weights


def read_benchmarks(config: Config) -> dict[str, list[Problem]]:
    """Problems of the configured benchmarks by name, if the run is ever evaluated."""
    evaluation = config.evaluation
    if not (evaluation.before or evaluation.after or evaluation.every):
        return {}
    return {
        name: load_benchmark(name, evaluation.limits.get(name, evaluation.limit), evaluation.files)
        for name in evaluation.benchmarks
    }
