"""A reward that is always 0: what does a method do where there is nothing to learn?

    reward: {use: "reval_core.verification.nothing:nothing", transform: raw}

A calibrated objective stays at its reference (docs/method.md). Benchmarks are graded by their gold answers as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from reval_core.verification.reward import GradedProblem


def nothing(problem: GradedProblem, completions: Sequence[str]) -> list[float]:
    """0 for every completion."""
    return [0.0] * len(completions)


nothing.version = 1  # type: ignore[attr-defined]
