"""Registered benchmarks: a name for a problem file of the user's own data folder (REVAL_DATA), or a built-in set.

Nothing is shipped or downloaded here: the texts are other people's. A path of a problem file is a benchmark as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reval_core.config import ProblemFile
from reval_core.errors import ProblemError
from reval_core.identity import digest
from reval_core.problems.loading import load_problems
from reval_core.problems.problem import Problem
from reval_core.registry import resolve
from reval_core.verification import check_gold


@dataclass(frozen=True)
class Benchmark:
    """A named set of problems."""

    name: str
    source: ProblemFile
    about: str
    size: int | None = None
    """Problems taken when nobody asks for fewer: a fixed subset by problem id, not the first rows of the file."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Options of GradingPolicy in which its published grading differs from the defaults."""


def _file(name: str, file: str, about: str, policy: Mapping[str, Any] | None = None) -> Benchmark:
    return Benchmark(name, ProblemFile(path="${REVAL_DATA}/" + file), about, policy=policy or {})


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "arithmetic",
            ProblemFile(path="builtin:arithmetic/heldout"),
            "256 problems that stand in neither the warm start nor training",
        ),
        Benchmark(
            "arithmetic-train",
            ProblemFile(path="builtin:arithmetic/train"),
            "256 of the training problems",
            size=256,
        ),
        _file("aime24", "aime24.jsonl", "AIME 2024, 30 problems with integer answers"),
        _file("aime25", "aime25.jsonl", "AIME 2025, 30 problems with integer answers"),
        _file("amc23", "amc23_40.jsonl", "AMC 12 of 2023, 40 problems"),
        _file("amc", "amc_2022_2023_83.jsonl", "AMC 12 of 2022 and 2023, 83 problems"),
        _file("math500", "math500.jsonl", "MATH-500"),
        _file(
            "minerva",
            "minerva_math_272.jsonl",
            "Minerva's STEM questions, 272; golds are rounded, so within 1 % of one is right",
            {"relative_tolerance": 0.01},
        ),
        _file("olympiadbench", "olympiadbench_675.jsonl", "OlympiadBench, 675 text problems in English"),
        _file("gsm8k", "gsm8k_test_1319.jsonl.gz", "GSM8K test, 1,319 word problems"),
    )
}


def load_benchmark(
    name: str, limit: int | None = None, files: Mapping[str, ProblemFile] | None = None
) -> list[Problem]:
    """Problems of a benchmark.

    Args:
        name: one of `files`, a registered name, or the path of a problem file with the columns question and answer.
        limit: at most so many, a fixed subset by problem id that does not depend on the order of the file.
        files: benchmarks of the user's own by name.

    Raises:
        ConfigError: nothing has that name.
        ProblemError: the file is missing or malformed.
    """
    source, size = _source(name, files or {})
    try:
        loaded = load_problems(source, check_gold)
    except ProblemError as error:
        raise ProblemError(f"Benchmark {name}: {error}") from error
    problems = list({p.problem_id: p for p in loaded}.values())
    limit = min((n for n in (limit, size) if n is not None), default=None)
    if limit is not None:
        problems = sorted(problems, key=lambda problem: problem.problem_id)[:limit]
    return problems


def _source(name: str, files: Mapping[str, ProblemFile]) -> tuple[ProblemFile, int | None]:
    if name in files:
        return files[name], None
    if "/" in name or name.endswith((".jsonl", ".gz", ".json", ".parquet")):
        return ProblemFile(path=name), None
    benchmark = resolve("benchmark", name, BENCHMARKS)
    return benchmark.source, benchmark.size


def benchmark_policy(name: str) -> Mapping[str, Any]:
    """Grading options of a registered benchmark that differ from the defaults; none for any other name."""
    return BENCHMARKS[name].policy if name in BENCHMARKS else {}


def benchmark_id(problems: list[Problem]) -> str:
    """Digest of which questions and gold answers a benchmark has."""
    return digest("bmk", sorted([problem.problem_id, problem.gold_digest] for problem in problems))
