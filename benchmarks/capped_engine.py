"""Engines with a length for each response, for weights that do not stop by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from learner import read_lengths

from reval_core.rollouts import SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.rollouts.vllm_engine import VllmEngine


@dataclass(frozen=True)
class Plan:
    """Sizes that seconds go by."""

    responses: int
    tokens: int
    batches: int
    """Decoded one after another."""
    steps: int
    """Of decoding, over all batches."""


@dataclass(frozen=True)
class Caps:
    """Real lengths, of which each response draws one by its seed.

    Args:
        scale: of the real lengths.
    """

    scale: float

    def drawn(self, requests: Sequence[SampleRequest], longest: int, scale: float | None = None) -> np.ndarray:
        """[B] tokens, at most `longest`, at this or another scale."""
        real = np.array([response for _, response in read_lengths(None)[0]])
        real = real[[request.seed % len(real) for request in requests]]
        return np.clip(((self.scale if scale is None else scale) * real).astype(int), 1, longest)


class CappedTransformers(TransformersEngine):
    """The engine on transformers: batches one after another, as many steps as the longest response of each has tokens.

    Args:
        scale: of the real lengths.
        kwargs: those of the engine.
    """

    def __init__(self, *, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = f"capped-{self.name}"
        self._caps = Caps(scale)

    def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
        """[B] drawn by the responses' seeds."""
        return self._caps.drawn(requests, settings.max_new_tokens)

    def plan(self, requests: Sequence[SampleRequest], settings: SamplingSettings, scale: float | None = None) -> Plan:
        """What decoding would take, at the settings' greatest length and another scale."""
        caps = [self._caps.drawn(batch, settings.max_new_tokens, scale) for batch in self._batches(requests, settings)]
        return Plan(len(requests), int(sum(c.sum() for c in caps)), len(caps), int(sum(c.max() for c in caps)))


class CappedVllm(VllmEngine):
    """vLLM in process: continuous batching, where a response that ends makes room for the next.

    Args:
        scale: of the real lengths.
        context: tokens of the longest sequence, prompt and response.
        max_batch_sequences, compute_dtype: those of the engine.
        eager: without compiled code and CUDA graphs, as a CPU needs it.
        pad_id, max_batch_tokens: nothing that this engine needs.
    """

    def __init__(
        self,
        *,
        scale: float,
        context: int,
        compute_dtype: str,
        max_batch_sequences: int,
        eager: bool,
        pad_id: int,
        max_batch_tokens: int,
    ) -> None:
        super().__init__(
            compute_dtype=compute_dtype,
            max_batch_sequences=max_batch_sequences,
            context=context,
            arguments={"enforce_eager": eager},
        )
        self.name = f"capped-{self.name}"
        self._caps = Caps(scale)

    def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
        """[B] drawn by the responses' seeds."""
        return self._caps.drawn(requests, settings.max_new_tokens)

    def plan(self, requests: Sequence[SampleRequest], settings: SamplingSettings, scale: float | None = None) -> Plan:
        """What decoding would take; its steps, were all places taken until the end."""
        tokens = int(self._caps.drawn(requests, settings.max_new_tokens, scale).sum())
        together = min(len(requests), self._sequences)
        return Plan(len(requests), tokens, 1, -(-tokens // together))
