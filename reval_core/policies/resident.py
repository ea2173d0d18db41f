"""What a worker process holds of a policy in memory: a learner, or a model that nobody changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from reval_core.policies.learners import AnyLearner


@dataclass(frozen=True, eq=False)
class Resident:
    """The policy whose weights the learner has, until its next update."""

    policy_id: str
    learner: AnyLearner
    settings: Mapping[str, Any]
    """What the learner was made with, as lineages record it."""
    checksum: str

    @property
    def model(self) -> nn.Module:
        """The learner's model."""
        return self.learner.model


@dataclass(frozen=True, eq=False)
class Frozen:
    """A policy that was loaded to be sampled from or to score with."""

    model: nn.Module
    checksum: str
    only_scores_in: str | None = None
    """Set on a reference beside a learner: its weights may be rounded to this precision, and away from the device."""
