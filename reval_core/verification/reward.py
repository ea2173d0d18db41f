"""Rewards: the protocol, the built-in one for mathematics, and how a user's own is loaded and read.

A reward of your own is named `package.module:attribute`. One rule says what the attribute is:

- a function whose first two parameters are called `problem` and `completions` *is* the scorer;
  `args` are passed to it as keyword arguments. Its name and version are its attributes `name` and
  `version` where it has them, else the dotted path and 1;
- anything else is called with `**args` and must return an object with `name`, `version` and `score`.

`score(problem, completions)` returns one entry for each completion: a Verdict, or a finite number. A
number is the reward itself; the verdict's status is `correct` where it is above 0, else `incorrect`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from reval_core.errors import ConfigError
from reval_core.registry import resolve
from reval_core.verification.verdict import (
    VERIFIER_VERSION,
    Verdict,
    decided,
    verdict_from_json,
)
from reval_core.verification.verifier import Verifier


class GradedProblem(Protocol):
    """What a reward may read of a problem."""

    @property
    def question(self) -> str:
        """The last user message."""

    @property
    def gold(self) -> str:
        """The gold answer as its source writes it."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The source's other columns, plain JSON data."""


@runtime_checkable
class Reward(Protocol):
    """Scores completions of one problem. `version` is raised whenever scores would change."""

    name: str
    version: int

    def score(self, problem: GradedProblem, completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each completion, in order."""


class MathReward:
    """1 for a correct mathematical answer, else 0, by a Verifier that the caller owns."""

    name = "math"
    version = VERIFIER_VERSION

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def score(self, problem: GradedProblem, completions: Sequence[str]) -> list[Verdict]:
        """Verify each completion against the problem's gold."""
        return self.verifier.verify_many([(problem.gold, completion) for completion in completions])


@dataclass(frozen=True)
class ProblemData:
    """A problem as a custom reward sees it in its worker: rebuilt from plain JSON data."""

    problem_id: str = ""
    question: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    gold: str = ""
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class FunctionReward:
    """A plain scoring function with a name and a version."""

    name: str
    version: int
    function: Callable[..., Sequence[Any]]

    def score(self, problem: GradedProblem, completions: Sequence[str]) -> list[Any]:
        """What the function returns, as a list."""
        return list(self.function(problem, completions))


def load(use: str, args: Mapping[str, Any]) -> Reward:
    """Import and build a custom reward. Runs in the worker, never in the training process.

    Raises ConfigError when the attribute is missing or what it gives is no reward.
    """
    attribute = resolve("reward", use, {})
    if inspect.isfunction(attribute) and list(inspect.signature(attribute).parameters)[:2] == [
        "problem",
        "completions",
    ]:
        name, version = getattr(attribute, "name", use), getattr(attribute, "version", 1)
        reward: Any = FunctionReward(name, version, functools.partial(attribute, **args))
    elif callable(attribute):
        reward = attribute(**args)
    else:
        raise ConfigError(f"The reward {use!r} is a {type(attribute).__name__}; it must be callable.")
    if not isinstance(getattr(reward, "name", None), str) or not callable(getattr(reward, "score", None)):
        raise ConfigError(f"The reward {use!r} must have a text `name` and a method `score`.")
    if isinstance(reward.version, bool) or not isinstance(getattr(reward, "version", None), int):
        raise ConfigError(f"The reward {use!r} must have a whole-number `version`.")
    return reward


def problem_to_json(problem: Any) -> dict[str, Any]:
    """The fields of a problem that a custom reward is given."""
    return {
        "problem_id": getattr(problem, "problem_id", ""),
        "question": problem.question,
        "messages": [dict(message) for message in getattr(problem, "messages", ())],
        "gold": problem.gold,
        "source": getattr(problem, "source", ""),
        "metadata": dict(problem.metadata),
    }


def score_one(reward: Reward, problem: Mapping[str, Any], completion: str) -> dict[str, Any]:
    """Score one completion in the worker; the verdict as plain data. Raises what the reward raises."""
    data = ProblemData(**{**problem, "messages": tuple(problem["messages"])})
    scores = list(reward.score(data, [completion]))
    if len(scores) != 1:
        raise ValueError(f"reward {reward.name!r} returned {len(scores)} scores for 1 completion")
    verdict = to_verdict(scores[0])
    return dataclasses.asdict(verdict_from_json(dataclasses.asdict(verdict)))


def to_verdict(value: Any) -> Verdict:
    """A custom reward's entry as a Verdict. Raises TypeError or ValueError when it is neither kind."""
    if isinstance(value, Verdict):
        return value
    if not isinstance(value, numbers.Real):
        raise TypeError(f"a reward must return numbers or Verdicts, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a reward must be finite, got {number}")
    verdict = decided(number > 0, "", "custom", "")
    return dataclasses.replace(verdict, reward=number, answer=None)
