"""Registered benchmarks: what is known of each, and how its problems are read.

Nothing is shipped or downloaded here: the texts are other people's. A name stands for a file of the user's own data
folder (REVAL_DATA), or with ``@hub`` behind it for the hub's copy; the path of a problem file is a benchmark as well.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from reval_core.config import ProblemFile
from reval_core.errors import ConfigError, ProblemError, VariableNotSet
from reval_core.home import expand
from reval_core.identity import digest
from reval_core.problems import multiple_choice
from reval_core.problems.loading import Row, load_problems
from reval_core.problems.problem import Problem, once_each
from reval_core.registry import resolve
from reval_core.verification import check_gold

log = logging.getLogger(__name__)

HUB = "@hub"
AS_CONFIGURED = "{question}, within the run's own prompt"


@dataclass(frozen=True)
class Benchmark:
    """A named set of problems and what is known of it."""

    name: str
    source: ProblemFile
    about: str
    rows: int | None = None
    """Problems that the published set has; None where nobody has published it."""
    take: int | None = None
    """Problems taken when nobody asks for fewer: a fixed subset by problem id, not the first rows of the file."""
    licence: str = ""
    """Under which terms the file and its texts are there."""
    origin: str = ""
    """Where the file that the checksum is of comes from."""
    sha256: str | None = None
    """Of that file; another file of the same name is read with a warning."""
    hub: ProblemFile | None = None
    """A copy of the hub."""
    answers: Literal["integer", "number", "LaTeX", "letter"] = "LaTeX"
    """What a gold answer is."""
    template: str = AS_CONFIGURED
    """The text that a problem is asked by."""
    extraction: Literal["boxed", "lenient"] | None = None
    """Where an answer is looked for, where that is not left to the configuration."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Options of GradingPolicy in which its published grading differs from the defaults."""
    prepare: Callable[[list[Row]], list[Row]] | None = None
    """Makes question and answer of the rows of a file that has neither."""
    of_training: bool = False
    """Made of training problems on purpose."""


def _file(file: str) -> ProblemFile:
    return ProblemFile(path="${REVAL_DATA}/" + file)


def _hub(name: str, split: str, question: str = "question") -> ProblemFile:
    return ProblemFile(path=f"hf:{name}", split=split, fields={"question": question})


def _after_hashes(rows: list[Row]) -> list[Row]:
    """GSM8K's own solutions end with #### and the answer; a row without one is refused by who reads it."""
    return [
        row | {"answer": row["answer"].rpartition("####")[2].strip().replace(",", "")}
        if isinstance(row.get("answer"), str)
        else row
        for row in rows
    ]


MAA = "problems (c) MAA"
QWEN = "QwenLM/Qwen2.5-Math @a45202bd16f1, evaluation/data"
QWEN_LICENCE = "MIT for evaluation/"
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "arithmetic",
            ProblemFile(path="builtin:arithmetic/heldout"),
            "256 problems that stand in neither the warm start nor training",
            rows=256,
            licence="ReVal's own",
            answers="integer",
        ),
        Benchmark(
            "arithmetic-train",
            ProblemFile(path="builtin:arithmetic/train"),
            "256 of the training problems",
            take=256,
            licence="ReVal's own",
            answers="integer",
            of_training=True,
        ),
        Benchmark(
            "aime24",
            _file("aime24.jsonl"),
            "AIME 2024, 30 problems with integer answers",
            rows=30,
            licence=f"{QWEN_LICENCE}; {MAA}",
            origin=f"{QWEN}/aime24/test.jsonl",
            sha256="1e913b12949d7b3881028f700f18c3e93537101e3ec058d11d3f7cfceb68fc48",
            hub=_hub("HuggingFaceH4/aime_2024", "train", "problem"),
            answers="integer",
        ),
        Benchmark(
            "aime25",
            _file("aime25.jsonl"),
            "AIME 2025, 30 problems with integer answers",
            rows=30,
            licence=f"Apache-2.0; {MAA}",
            origin="ypwang61/One-Shot-RLVR @21ed529ec900, Qwen2.5-Eval/evaluation/data/aime25/test.jsonl",
            sha256="542d8142401e8ee85b040e4980cd1745091e0995ec3155d81c046e871fe46580",
            hub=_hub("math-ai/aime25", "test", "problem"),
            answers="integer",
        ),
        Benchmark(
            "amc23",
            _file("amc23_40.jsonl"),
            "AMC 12 of 2023, 40 problems; all of them stand in amc, too",
            rows=40,
            licence=f"{QWEN_LICENCE}; {MAA}",
            origin=f"{QWEN}/amc23/test.jsonl",
            sha256="f482ffb5ce41778753c1bc7186d1eb01b7ad4bf689657f1adfba85b8637d5047",
            hub=_hub("math-ai/amc23", "test"),
            answers="number",
        ),
        Benchmark(
            "amc",
            _file("amc_2022_2023_83.jsonl"),
            "AMC 12 of 2022 and 2023, 83 problems",
            rows=83,
            licence=f"MIT; {MAA}",
            origin="agentica-project/deepscaler @95ef74ffee00, deepscaler/data/test/amc.json",
            sha256="56c687d1b58f7625e832eeb7e88fcb140af56b14f069cd727628685daccc4f8b",
            hub=_hub("AI-MO/aimo-validation-amc", "train", "problem"),
            answers="number",
        ),
        Benchmark(
            "math500",
            _file("math500.jsonl"),
            "MATH-500, 500 problems",
            rows=500,
            licence="MIT",
            origin="ZubinGou/math-evaluation-harness @db77bc6bb2a1, data/math_oai/test.jsonl",
            sha256="97187fc21c70d3c590a3ed82e21a0218d35d9800ed3c15e13772f61a5bbf9c47",
            hub=_hub("HuggingFaceH4/MATH-500", "test", "problem"),
        ),
        Benchmark(
            "minerva",
            _file("minerva_math_272.jsonl"),
            "Minerva's STEM questions, 272; golds are rounded, so within 1 % of one is right",
            rows=272,
            licence=f"{QWEN_LICENCE}; problems from MIT OpenCourseWare",
            origin=f"{QWEN}/minerva_math/test.jsonl",
            sha256="c744fe93c25d1098a673f3dac47b50555659ddce288fae3b9abebbcf77df9997",
            hub=_hub("math-ai/minervamath", "test"),
            policy={"relative_tolerance": 0.01},
        ),
        Benchmark(
            "olympiadbench",
            _file("olympiadbench_675.jsonl"),
            "OlympiadBench, 675 text problems in English",
            rows=675,
            licence=f"{QWEN_LICENCE}; OpenBMB/OlympiadBench MIT",
            origin=f"{QWEN}/olympiadbench/test.jsonl",
            sha256="50fee64d8cb1fe610ac3773c4e78f2e70a91be886305af25cc0441cc7e9959b8",
        ),
        Benchmark(
            "gsm8k",
            _file("gsm8k_test_1319.jsonl.gz"),
            "GSM8K test, 1,319 word problems",
            rows=1319,
            licence="MIT",
            origin="openai/grade-school-math @3101c7d50724, grade_school_math/data/test.jsonl",
            sha256="451c84dd851a378eacfdcb44392e0ae534e5bd497d3c59ff98df21e60a226740",
            hub=_hub("openai/gsm8k#main", "test"),
            answers="number",
            prepare=_after_hashes,
        ),
        Benchmark(
            "gpqa",
            _file("gpqa_diamond.csv"),
            "GPQA diamond, 198 questions with four choices, from your own copy: its authors ask not to post it",
            rows=198,
            licence="CC BY 4.0; not to be posted in plain text",
            origin="the authors' zip or the gated hub copy, as it is",
            hub=ProblemFile(path="hf:Idavidrein/gpqa#gpqa_diamond", split="train"),
            answers="letter",
            template=multiple_choice.TEMPLATE,
            extraction="lenient",
            prepare=multiple_choice.prepare,
        ),
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
        VariableNotSet: the file's path has a variable that is not set.
        ProblemError: the file is missing or malformed.
    """
    source, known = _source(name, files or {})
    try:
        _check_file(name, source, known)
        loaded = load_problems(source, check_gold, prepare=known.prepare if known else None)
    except VariableNotSet as error:
        raise VariableNotSet(
            f"Benchmark {name}: {error} Or evaluate on a problem file of your own: its path is a benchmark, too."
        ) from error
    except ProblemError as error:
        raise ProblemError(f"Benchmark {name}: {error}{_cure(name, known)}") from error
    kept, contradicted = once_each(loaded)
    if contradicted:
        log.warning(
            "benchmark %s has two gold answers for the same question, %d times; the first one counts: %s",
            name, len(contradicted), contradicted[0],
        )  # fmt: skip
    problems = list(kept.values())
    limit = min((n for n in (limit, known.take if known else None) if n is not None), default=None)
    if limit is not None:
        problems = sorted(problems, key=lambda problem: problem.problem_id)[:limit]
    return problems


def check_name(name: str, files: Mapping[str, ProblemFile]) -> None:
    """Refuse what is no benchmark's name, so that a setting for one is not lost to a slip.

    Raises:
        ConfigError: names the nearest registered one.
    """
    _source(name, files)


def _source(name: str, files: Mapping[str, ProblemFile]) -> tuple[ProblemFile, Benchmark | None]:
    if name in files:
        return files[name], None
    if "/" in name or name.endswith((".jsonl", ".gz", ".json", ".parquet", ".csv")):
        return ProblemFile(path=name), None
    benchmark: Benchmark = resolve("benchmark", name.removesuffix(HUB), BENCHMARKS)
    if not name.endswith(HUB):
        return benchmark.source, benchmark
    if benchmark.hub is None:
        raise ConfigError(f"No hub copy of {benchmark.name} is known here; put {benchmark.source.path} in place.")
    return benchmark.hub, benchmark


def _cure(name: str, known: Benchmark | None) -> str:
    """What to do where a registered file is not there."""
    if known is None or name.endswith(HUB) or not known.source.path.startswith("${REVAL_DATA}"):
        return ""
    hub = f", or evaluate the hub's copy: {known.name}{HUB}" if known.hub else ""
    return f" It is {known.origin} ({known.licence}): put it there{hub}."


def _check_file(name: str, source: ProblemFile, known: Benchmark | None) -> None:
    if known is None or known.sha256 is None or name.endswith(HUB):
        return
    path = expand(source.path)
    if path.is_file() and not is_known_file(path, known):
        log.warning(
            "benchmark %s: %s is not the file whose checksum is registered: its figures may not compare with others'",
            name,
            path.name,
        )


def is_known_file(path: Path, benchmark: Benchmark) -> bool:
    """Whether a file is, byte by byte, the one that the registry knows."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns) == benchmark.sha256


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def registered(name: str) -> Benchmark | None:
    """The registered benchmark of that name, ``@hub`` or not; None for a file or a name of the user's own."""
    return BENCHMARKS.get(name.removesuffix(HUB))


def benchmark_policy(name: str) -> Mapping[str, Any]:
    """Grading options of a registered benchmark that differ from the defaults; none for any other name."""
    known = registered(name)
    return known.policy if known else {}


def benchmark_id(problems: list[Problem]) -> str:
    """Digest of which questions and gold answers a benchmark has."""
    return digest("bmk", sorted([problem.problem_id, problem.gold_digest] for problem in problems))
