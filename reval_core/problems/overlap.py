"""Training problems that stand in a benchmark: a result on such a benchmark is partly memory.

Exact: the questions are equal, letters, digits and signs of arithmetic compared and nothing else. Near: half or more of
the training question's runs of eight words stand in one test question; mostly the same problem with other numbers, or
a part of it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reval_core.problems.problem import Problem

RUN = 8
"""Words of a run."""
NEAR = 0.5
"""Share of the runs that makes two questions near."""
_WORD = re.compile(r"[^\W_]+|[-+*/^=<>]")


@dataclass(frozen=True)
class Overlap:
    """Training problems that a benchmark has, too."""

    benchmark: str
    problems: int
    """Of the benchmark."""
    exact: tuple[str, ...]
    """Ids of training problems whose question is one of the benchmark's."""
    near: tuple[str, ...]
    """Ids of further ones that share most of their words with one."""
    example: str = ""
    """The question of one of them."""

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return bool(self.exact or self.near)

    def __str__(self) -> str:
        """Such as ``math500: 7 training problems are in it, 33 more are near one of its 500``."""
        return (
            f"{self.benchmark}: {len(self.exact)} training problems are in it, {len(self.near)} more are near one of "
            f"its {self.problems}"
        )


def overlaps(training: Iterable[Problem], benchmarks: Mapping[str, Sequence[Problem]]) -> list[Overlap]:
    """What of the training problems stands in each benchmark.

    Args:
        training: each problem once.
        benchmarks: problems by the benchmark's name.

    Returns:
        One for each benchmark, in order.
    """
    words = {name: [_words(problem.question) for problem in problems] for name, problems in benchmarks.items()}
    asked = {name: {"".join(question) for question in questions} for name, questions in words.items()}
    runs = _index(words)
    exact: dict[str, list[Problem]] = defaultdict(list)
    near: dict[str, list[Problem]] = defaultdict(list)
    for problem in training:
        question = _words(problem.question)
        text = "".join(question)
        equal = {name for name, texts in asked.items() if text in texts}
        for name in equal:
            exact[name].append(problem)
        for name in _near(question, runs) - equal:
            near[name].append(problem)
    return [
        Overlap(
            name,
            len(problems),
            tuple(problem.problem_id for problem in exact[name]),
            tuple(problem.problem_id for problem in near[name]),
            next((problem.question for problem in (*exact[name], *near[name])), ""),
        )
        for name, problems in benchmarks.items()
    ]


Runs = dict[int, list[tuple[str, int]]]
"""Hash of a run of words to the (benchmark, number of the question) that have it."""


def _index(words: Mapping[str, Sequence[Sequence[str]]]) -> Runs:
    found: Runs = defaultdict(list)
    for name, questions in words.items():
        for number, question in enumerate(questions):
            for run in set(_runs(question)):
                found[run].append((name, number))
    return found


def _near(question: Sequence[str], runs: Runs) -> set[str]:
    """Benchmarks with a question that has most of these words in the same runs."""
    own = set(_runs(question))
    shared = Counter(place for run in own for place in runs.get(run, ()))
    return {name for (name, _), count in shared.items() if count >= NEAR * len(own)}


def _runs(words: Sequence[str]) -> list[int]:
    return [hash(tuple(words[start : start + RUN])) for start in range(len(words) - RUN + 1)]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
