"""Grade: one answer judged as a run would, with its path through the tiers. Stores nothing, needs no server.

reval grade '\\frac{1}{2}' '0.5' --explain
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console

from reval_core.config import RewardConfig
from reval_core.errors import ConfigError
from reval_core.verification import Verdict, Verifier, grading_policy
from reval_core.verification.explain import Step, explain


def grade(gold: str, answer: str, reward: RewardConfig, *, completion: bool) -> tuple[list[Step], Verdict]:
    """The path and the verdict of one answer, or of a whole completion.

    Raises:
        ConfigError: the reward is not mathematics, or an option of its policy is unknown.
    """
    if reward.use != "math":
        raise ConfigError(f"reval grade judges mathematics; the reward of this configuration is {reward.use}.")
    with Verifier(
        1, reward.timeout_s, reward.extraction, grading_policy(reward.policy), memory_gb=reward.memory_gb
    ) as verifier:
        steps = explain(verifier, gold, answer, completion=completion)
        verdict = verifier.verify(gold, answer) if completion else verifier.grade(gold, answer)
    return steps, verdict


def show(steps: Sequence[Step], verdict: Verdict, console: Console, *, as_json: bool) -> None:
    """Print the path, where there is one, and the verdict in one line."""
    if as_json:
        told = dataclasses.asdict(verdict) | {"path": [dataclasses.asdict(step) for step in steps]}
        console.print(json.dumps(told, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    width = max((len(step.tier) for step in steps), default=0)
    for step in steps:
        console.print(f"{step.tier:{width}}  {step.said}", markup=False, soft_wrap=True)
    if steps:
        console.print()
    answer = "" if verdict.answer is None else f", answer {verdict.answer[:200]!r}"
    took = f", {1000 * verdict.seconds:.1f} ms" if verdict.seconds else ""
    line = f"{verdict.status}: {verdict.details} (tier {verdict.tier}{answer}{took})"
    console.print(line, markup=False, soft_wrap=True)
