"""Training problems in benchmarks: the same question, most of the same words, or none."""

import os
from pathlib import Path

import pytest

from reval_core.config import ProblemFile
from reval_core.problems import load_problems
from reval_core.problems.benchmarks import load_benchmark
from reval_core.problems.overlap import Overlap, overlaps
from reval_core.problems.problem import Problem, ask

ONE = "Anna has three red apples and buys four more at the market for 2 coins each."
NEAR = "Anna has three red apples and buys four more at the market for 5 coins each."
OTHER = "Find the number of pairs of whole numbers whose product is one more than their sum."


def problems(*questions: str) -> list[Problem]:
    return [Problem(ask(question), "1") for question in questions]


def test_equal_letters_and_digits_are_the_same_question() -> None:
    same = ONE.upper().replace(" ", "\n ").replace(".", " !")
    (found,) = overlaps(problems(same, OTHER), {"bench": problems(ONE, "1?")})
    assert found == Overlap("bench", 2, (problems(same)[0].problem_id,), (), same)
    assert str(found) == "bench: 1 training problems are in it, 0 more are near one of its 2"


def test_most_of_the_words_in_the_same_runs_are_near() -> None:
    near, far = overlaps(problems(NEAR), {"near": problems(OTHER, ONE), "far": problems(OTHER)})
    assert (len(near.exact), len(near.near), near.example) == (0, 1, NEAR)
    assert not far.found and far.example == ""
    # six of its nine runs of eight words; another half of the sentence is not enough
    half = "Anna has three red apples and buys four pears because her brother likes them more than bread."
    assert not overlaps(problems(half), {"bench": problems(ONE)})[0].found


def test_short_questions_are_compared_as_a_whole_alone() -> None:
    assert not overlaps(problems("3+4-5=?"), {"bench": problems("3+4-6=?")})[0].found
    assert overlaps(problems("3+4=?"), {"bench": problems("3 + 4 = ?")})[0].exact
    assert not overlaps(problems("3+4=?"), {"bench": problems("3-4=?")})[0].found  # signs are read


def test_what_is_known_of_the_public_files(reval_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_DATA", str(reval_data))
    source = ProblemFile(path=os.path.join(reval_data, "deepscaler_40308.jsonl.gz"), filter="overlap IS NOT NULL")
    found = overlaps(
        load_problems(source), {name: load_benchmark(name) for name in ("math500", "olympiadbench", "aime24")}
    )
    assert {one.benchmark: len(one.exact) for one in found} == {"math500": 7, "olympiadbench": 1, "aime24": 0}
