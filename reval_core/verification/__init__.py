"""Grading of answers: extraction, limits, exact and numeric tiers, a symbolic tier in killable workers.

    with Verifier(extraction="boxed") as verifier:
        verifier.grade(r"\\frac{1}{2}", "0.5").correct        # True

`Grader` is what the pipeline calls; `Reward` is the protocol for rewards of your own.
"""

from reval_core.verification.grader import Grader, grading_policy
from reval_core.verification.reward import FunctionReward, MathReward, ProblemData, Reward
from reval_core.verification.tiers import check_gold, is_sentence
from reval_core.verification.verdict import (
    STATUSES,
    VERIFIER_VERSION,
    GradingPolicy,
    Verdict,
    math_identity,
)
from reval_core.verification.verifier import Verifier

__all__ = [
    "STATUSES",
    "VERIFIER_VERSION",
    "FunctionReward",
    "Grader",
    "GradingPolicy",
    "MathReward",
    "ProblemData",
    "Reward",
    "Verdict",
    "Verifier",
    "check_gold",
    "grading_policy",
    "is_sentence",
    "math_identity",
]
