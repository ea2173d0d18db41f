"""What grading returns and the choices it is made under: Verdict, GradingPolicy, the version."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from reval_core.identity import canonical_json

VERIFIER_VERSION = 3
"""Raised by hand whenever the same answer could get another verdict than before."""

Status = Literal["correct", "incorrect", "no_answer", "timeout", "error", "rejected"]
Extraction = Literal["boxed", "lenient"]
STATUSES: tuple[str, ...] = get_args(Status)
EXTRACTIONS: tuple[str, ...] = get_args(Extraction)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one answer.

    status: correct | incorrect | no_answer (nothing to grade was found) | timeout (the hard limit
        ended it) | error (the gold is unusable, or a worker or a custom reward failed) | rejected
        (over a static limit, so it was never evaluated).
    reward: 1.0 or 0.0 for mathematics, the reward's own number for a custom reward.
    answer: the text that was graded, None when none was found.
    tier: what decided: extraction, text, limits, choice, exact, structure, numeric, symbolic, custom.
    seconds: wall time spent deciding; 0.0 when the verdict came out of the cache.
    details: one line of reason, for people and logs.
    """

    status: Status
    correct: bool
    reward: float
    answer: str | None
    tier: str
    seconds: float
    details: str


@dataclass(frozen=True, slots=True)
class GradingPolicy:
    """Choices on which graders differ; part of the verifier's identity.

    percent_equals_fraction: 50% equals 1/2.
    percent_sign_optional: 50% equals 50 (golds often drop the sign that the question implies).
    drop_units: a unit on one side only is ignored; two known units that differ are never equal.
    open_equals_closed: intervals with the same ends are equal whatever their brackets.
    ordered_lists: a list without brackets (`1, 2, 3`) must keep the gold's order. Tuples always do.
    join_boxes: boxes with nothing but commas, and/or or labels between them are one list.
    rounded_digits: a decimal equals an exact value (1/3, sqrt(2)) when it is that value rounded or
        cut to its own last digit and has at least this many digits. Decimals never equal other
        decimals or integers approximately.
    relative_tolerance: if above 0, a constant within this relative distance of the gold is accepted
        (0.01 suits physics golds that were rounded).
    """

    percent_equals_fraction: bool = True
    percent_sign_optional: bool = True
    drop_units: bool = True
    open_equals_closed: bool = False
    ordered_lists: bool = False
    join_boxes: bool = True
    rounded_digits: int = 6
    relative_tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that would make every pair equal."""
        if self.rounded_digits < 3:
            raise ValueError(f"rounded_digits must be at least 3, got {self.rounded_digits}")
        if not 0.0 <= self.relative_tolerance < 0.5:
            raise ValueError(f"relative_tolerance must be in [0, 0.5), got {self.relative_tolerance}")


def identity(*parts: object) -> str:
    """`ver_` and the first 16 hex digits of the sha256 of the parts' canonical JSON."""
    return "ver_" + hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:16]


def math_identity(extraction: Extraction, policy: GradingPolicy) -> str:
    """The verifier_id of mathematical grading; time and memory limits are not part of it."""
    return identity(VERIFIER_VERSION, extraction, asdict(policy))


def conjunction(verdicts: Sequence[bool | None]) -> bool | None:
    """All of them: False when one is, else None when one is undecided."""
    return False if False in verdicts else None if None in verdicts else True


def decided(equal: bool, answer: str, tier: str, details: str, seconds: float = 0.0) -> Verdict:
    """The verdict for an answer that was compared with its gold."""
    status: Status = "correct" if equal else "incorrect"
    return Verdict(status, equal, float(equal), answer, tier, seconds, details)


def failed(status: Status, answer: str | None, tier: str, details: str, seconds: float = 0.0) -> Verdict:
    """A verdict without comparison: no_answer, timeout, error or rejected. Reward 0."""
    return Verdict(status, False, 0.0, answer, tier, seconds, details)


def verdict_from_json(data: Mapping[str, Any]) -> Verdict:
    """A Verdict out of plain data from a worker; ValueError when it is not one."""
    status, reward = data.get("status"), data.get("reward")
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {status!r}")
    if isinstance(reward, bool) or not isinstance(reward, (int, float)):
        raise ValueError(f"reward must be a number, got {reward!r}")
    if not math.isfinite(reward):
        raise ValueError(f"reward must be finite, got {reward!r}")
    answer = data.get("answer")
    return Verdict(
        status=status,
        correct=status == "correct",
        reward=float(reward),
        answer=None if answer is None else str(answer),
        tier=str(data.get("tier", "custom")),
        seconds=0.0,
        details=str(data.get("details", "")),
    )
