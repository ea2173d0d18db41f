"""Registered benchmarks: a name for a problem file of the user's own data folder (REVAL_DATA), or a built-in set.

Nothing is shipped or downloaded here: the texts are other people's. A path of a problem file is a benchmark as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from reval_core.config import ProblemSource
from reval_core.identity import digest
from reval_core.problems.loading import load_problems
from reval_core.problems.problem import Problem
from reval_core.registry import resolve
from reval_core.verification import check_gold


@dataclass(frozen=True)
class Benchmark:
    """A named set of problems."""

    name: str
    source: ProblemSource
    about: str
    size: int | None = None
    """Problems taken when nobody asks for fewer: a fixed subset by problem id, not the first rows of the file."""


def _file(name: str, file: str, about: str) -> Benchmark:
    return Benchmark(name, ProblemSource(path="${REVAL_DATA}/" + file), about)


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "arithmetic",
            ProblemSource(path="builtin:arithmetic/heldout"),
            "256 problems that stand in neither the warm start nor training",
        ),
        Benchmark(
            "arithmetic-train",
            ProblemSource(path="builtin:arithmetic/train"),
            "256 of the training problems",
            size=256,
        ),
        _file("aime24", "aime24.jsonl", "AIME 2024, 30 problems with integer answers"),
        _file("aime25", "aime25.jsonl", "AIME 2025, 30 problems with integer answers"),
        _file("amc23", "amc23_40.jsonl", "AMC 12 of 2023, 40 problems"),
        _file("amc", "amc_2022_2023_83.jsonl", "AMC 12 of 2022 and 2023, 83 problems"),
        _file("math500", "math500.jsonl", "MATH-500"),
        _file("minerva", "minerva_math_272.jsonl", "Minerva's STEM questions, 272"),
        _file("olympiadbench", "olympiadbench_675.jsonl", "OlympiadBench, 675 text problems in English"),
        _file("gsm8k", "gsm8k_test_1319.jsonl.gz", "GSM8K test, 1,319 word problems"),
    )
}


def load_benchmark(name: str, limit: int | None = None) -> list[Problem]:
    """Problems of a registered benchmark, or of a problem file by its path.

    Args:
        name: a registered name, or a path.
        limit: at most so many, a fixed subset by problem id that does not depend on the order of the file.

    Raises:
        ConfigError: nothing has that name.
        ProblemError: the file is missing or malformed.
    """
    if "/" in name or name.endswith((".jsonl", ".gz", ".json", ".parquet")):
        source, size = ProblemSource(path=name), None
    else:
        benchmark = resolve("benchmark", name, BENCHMARKS)
        source, size = benchmark.source, benchmark.size
    problems = list({p.problem_id: p for p in load_problems(source, check_gold)}.values())
    limit = min((n for n in (limit, size) if n is not None), default=None)
    if limit is not None:
        problems = sorted(problems, key=lambda problem: problem.problem_id)[:limit]
    return problems


def benchmark_id(problems: list[Problem]) -> str:
    """Digest of which questions and gold answers a benchmark has."""
    return digest("bmk", sorted([problem.problem_id, problem.gold_digest] for problem in problems))
