"""The engine on transformers with a length for each response, for weights that do not stop by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from learner import read_lengths

from reval_core.rollouts import SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine


@dataclass(frozen=True)
class Plan:
    """Sizes that seconds go by."""

    responses: int
    tokens: int
    batches: int
    """Decoded one after another."""
    steps: int
    """Of decoding, over all batches."""


class CappedEngine(TransformersEngine):
    """The engine on transformers, with a length for each response.

    Args:
        longest: tokens at most.
        scale: of the real lengths.
        kwargs: those of the engine.
    """

    def __init__(self, *, longest: int, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = f"capped-{self.name}"
        self._longest, self._scale = longest, scale
        self._real = np.array([response for _, response in read_lengths(None)[0]])

    def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
        """[B] drawn by the responses' seeds."""
        return self._drawn(requests, self._longest, self._scale)

    def plan(self, requests: Sequence[SampleRequest], settings: SamplingSettings, scale: float | None = None) -> Plan:
        """What decoding would take, at the settings' greatest length and another scale."""
        most, scale = settings.max_new_tokens, self._scale if scale is None else scale
        caps = [self._drawn(batch, most, scale) for batch in self._batches(requests, settings)]
        return Plan(len(requests), int(sum(c.sum() for c in caps)), len(caps), int(sum(c.max() for c in caps)))

    def _drawn(self, requests: Sequence[SampleRequest], longest: int, scale: float) -> np.ndarray:
        real = self._real[[request.seed % len(self._real) for request in requests]]
        return np.clip((scale * real).astype(int), 1, longest)
