"""What passes between tasks: small frozen references. Texts, token ids and tensors stay in the store and in memory."""

from __future__ import annotations

from dataclasses import dataclass

Intervals = dict[str, tuple[float, float | None, float | None]]
"""Metric to (value, low, high), 95 % interval."""


@dataclass(frozen=True)
class Batch:
    """A committed set of sampled responses."""

    batch_id: str
    policy_id: str
    trajectories: int
    tokens: int
    truncated: int


@dataclass(frozen=True)
class Verdicts:
    """A graded batch."""

    batch_id: str
    verifier_id: str
    golds_digest: str
    correct: int
    statuses: dict[str, int]


@dataclass(frozen=True)
class Scores:
    """Reference scalars of some trajectories."""

    reference_policy_id: str
    scoring_id: str
    trajectories: int


@dataclass(frozen=True)
class Entries:
    """A round's admissions to the replay buffer."""

    iteration: int
    count: int
    accuracy: float | None
    """Share of right responses; None for a reward that is a number of its own and knows no right and wrong."""
    reward: float


@dataclass(frozen=True)
class Learned:
    """A policy made by updates."""

    policy_id: str
    reference_policy_id: str | None
    weights_checksum: str
    updates: int
    skipped: int


@dataclass(frozen=True)
class Saved:
    """A policy's folder."""

    policy_id: str
    folder: str


@dataclass(frozen=True)
class Evaluated:
    """A policy on a benchmark."""

    evaluation_id: str
    policy_id: str
    benchmark: str
    metrics: Intervals


@dataclass(frozen=True)
class Reported:
    """A report's file, relative to the root."""

    path: str
