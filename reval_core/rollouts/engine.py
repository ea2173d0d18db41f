"""What every rollout engine does: token ids in, token ids out, one seed for each sample.

There is no text round trip: the ids that were sampled are the ids that are learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn. The distribution is softmax(logits / temperature), cut by top_k, then by top_p."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class SampleRequest:
    """One response to sample."""

    problem_id: str
    sample_index: int
    seed: int
    """64-bit; decides the response together with policy and settings, whatever is sampled beside it."""
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One finished response."""

    request: SampleRequest
    token_ids: tuple[int, ...]
    """At least one; the stop token is included when it was sampled."""
    finish_reason: Literal["stop", "length"]
    logprob: float
    """Sum of log softmax(logits / temperature) of the sampled tokens in nats, before top_k and top_p; for diagnosis."""
    policy_id: str | None = None
    """Policy whose weights it was sampled from; None where an engine does not tell."""


class RolloutEngine(Protocol):
    """A sampler of responses. The weights come from the caller; an engine may keep a copy of them.

    In the order of use: `load`, `sample`, `sleep`, and again. An engine stays with its worker process for all stages of
    a run; what it needs longest, it makes at the first `load`.
    """

    @property
    def name(self) -> str:
        """Name and version of the engine and its precision, part of a batch's identity."""
        ...

    @property
    def copies_weights(self) -> bool:
        """Whether it samples from weights of its own, which are held against the model's after each `load`."""
        ...

    def load(self, policy_id: str, model: Any) -> None:
        """Sample from this policy from now on, awake if it slept; ``model`` holds its weights.

        A policy that is loaded already costs little. The model is the caller's, who changes it between samples.

        Raises:
            RolloutError: the engine cannot take the weights.
        """
        ...

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        """Finished responses, in whatever order they finish; whoever closes the iterator ends what is still sampled.

        Raises:
            RolloutError: some of them cannot be sampled.
        """
        ...

    def sleep(self) -> None:
        """Give up memory that learning may need, until the next `load`."""
        ...

    def close(self) -> None:
        """Give memory and processes back."""
        ...
