"""The peer of benchmarks/verifier.py: math-verify as people use it, in the same killable workers as ours.

Default settings; its own alarms off, since the pool's limit stops it; the gold in a box where it is bare, without which
it reads far fewer golds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import math_verify

logging.getLogger("math_verify").setLevel(logging.ERROR)


def accuracy(problem, completions: Sequence[str]) -> list[float]:
    """1 where math-verify accepts the completion."""
    gold = (
        problem.gold if any(mark in problem.gold for mark in ("$", "\\(", "\\boxed")) else f"\\boxed{{{problem.gold}}}"
    )
    wanted = math_verify.parse(gold, parsing_timeout=None)
    return [
        float(math_verify.verify(wanted, math_verify.parse(text, parsing_timeout=None), timeout_seconds=None))
        for text in completions
    ]


accuracy.version = 1
