"""Custom rewards: how they are found, what they may return, and that they cannot hurt the caller."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reval_core.errors import ConfigError
from reval_core.verification import Grader, GradingPolicy, MathReward, Reward, Verifier
from reval_core.verification.verdict import math_identity

MODULE = textwrap.dedent("""
    import time
    from reval_core.verification import Verdict

    def score(problem, completions, bonus=0.0):
        print("noise on standard output")
        return [bonus + problem.metadata["weight"] * len(completion) for completion in completions]

    class Tricky:
        name, version = "tricky", 3
        def __init__(self, sleep_s=600):
            self.sleep_s = sleep_s
        def score(self, problem, completions):
            text = completions[0]
            if text == "hang":
                time.sleep(self.sleep_s)
            if text == "raise":
                raise KeyError("no such thing")
            if text == "exit":
                raise SystemExit(3)
            if text == "nan":
                return [float("nan")]
            if text == "text":
                return ["1"]
            if text == "many":
                return [1.0, 1.0]
            if text == "memory":
                return [len(bytearray(8 * 10**9))]
            if text == "grow":
                pile = []
                while True:
                    pile.append("x" * 10**7)
            if text == "verdict":
                return [Verdict("correct", True, 0.25, text, "mine", 0.0, problem.question)]
            return [-1.5 if text == "negative" else 0.0]

    number = 5
    class Nameless:
        def score(self, problem, completions):
            return []
""")


@dataclass(frozen=True)
class Problem:
    """The attributes that a reward reads."""

    question: str = "How much?"
    gold: str = "42"
    metadata: dict[str, Any] = field(default_factory=lambda: {"weight": 2})


@pytest.fixture
def my_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_rewards"


@pytest.fixture
def tricky(my_rewards: str) -> Iterator[Grader]:
    with Grader(f"{my_rewards}:Tricky", {"sleep_s": 500}, workers=1, timeout_s=5.0, memory_gb=1.0) as grader:
        yield grader


def test_math_is_graded_through_the_same_door() -> None:
    with Grader(policy={"ordered_lists": True}) as grader:
        verdicts = grader.grade_batch([(Problem(), "\\boxed{42}"), (Problem(), "42"), (Problem(), "\\boxed{4}")])
        assert [v.status for v in verdicts] == ["correct", "no_answer", "incorrect"]
        assert grader.grader_id == math_identity("boxed", GradingPolicy(ordered_lists=True))


def test_math_reward_has_the_protocol() -> None:
    with Verifier() as verifier:
        reward = MathReward(verifier)
        assert isinstance(reward, Reward)
        assert [v.reward for v in reward.score(Problem(), ["\\boxed{42}", "no"])] == [1.0, 0.0]


def test_a_plain_function_scores(my_rewards: str) -> None:
    with Grader(f"{my_rewards}:score", {"bonus": 0.5}, workers=2, timeout_s=30.0) as grader:
        verdicts = grader.grade_batch([(Problem(), "x" * n) for n in range(6)])
        assert [v.reward for v in verdicts] == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]
        assert {v.status for v in verdicts} == {"correct"}


def test_the_identity_follows_name_version_and_args(my_rewards: str) -> None:
    ids = []
    for name, args in [("score", {"bonus": 0.5}), ("score", {"bonus": 1.5}), ("Tricky", {})]:
        with Grader(f"{my_rewards}:{name}", args, workers=1) as grader:
            ids.append(grader.grader_id)
    assert len(set(ids)) == 3
    assert all(identity.startswith("ver_") for identity in ids)


def test_misbehaviour_costs_its_own_item_only(tricky: Grader) -> None:
    texts = ["zero", "hang", "raise", "exit", "nan", "text", "many", "memory", "grow", "negative", "verdict", "zero"]
    verdicts = dict(zip(texts, tricky.grade_batch([(Problem(), text) for text in texts]), strict=True))
    statuses = {text: verdict.status for text, verdict in verdicts.items()}
    grow = statuses.pop("grow")
    assert grow in ("error", "timeout")  # the memory limit or, on a slow machine, the clock
    assert statuses == {
        "zero": "incorrect",
        "hang": "timeout",
        "raise": "error",
        "exit": "error",
        "nan": "error",
        "text": "error",
        "many": "error",
        "memory": "error",
        "negative": "incorrect",
        "verdict": "correct",
    }
    assert "no such thing" in verdicts["raise"].details
    assert "finite" in verdicts["nan"].details
    assert "memory" in verdicts["memory"].details
    assert verdicts["negative"].reward == -1.5
    assert (verdicts["verdict"].reward, verdicts["verdict"].details) == (0.25, "How much?")
    assert verdicts["hang"].reward == 0.0


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("nothing", "Unknown reward"),
        ("no_such_module:x", "no_such_module"),
        ("my_rewards:absent", "absent"),
        ("my_rewards:number", "callable"),
        ("my_rewards:Nameless", "name"),
    ],
)
def test_a_reward_that_cannot_be_used_is_a_configuration_error(my_rewards: str, use: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), Grader(use, workers=1) as grader:
        grader.grade_batch([(Problem(), "x")])


def test_unknown_grading_options_and_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="percent_is_fun"):
        Grader(policy={"percent_is_fun": True})
    with pytest.raises(ConfigError, match="args"):
        Grader(args={"x": 1})
