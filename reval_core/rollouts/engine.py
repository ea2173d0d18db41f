"""What every rollout engine does: token ids in, token ids out, one seed for each sample.

There is no text round trip: the ids that were sampled are the ids that are learned from. Where sampling ends before
all responses have: a budget of tokens is kept by `reval_core.rollouts.budget`, around any engine that can go on with a
response that was begun; a deadline is kept by the engine, which alone has what is unfinished (`SamplingSettings`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

FinishReason = Literal["stop", "length", "budget", "deadline"]
"""Why a response ends: by a stop token, or it was cut at max_new_tokens, by the budget, by the deadline."""
FINISH_REASONS: tuple[str, ...] = get_args(FinishReason)


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn, and when no more are.

    The distribution is softmax(logits / temperature), cut by top_k, then by top_p.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop_ids: tuple[int, ...]
    token_budget: int | None = None
    """Tokens of a batch's responses together at most; `reval_core.rollouts.budget` makes lengths of it, an engine does
    not see it."""
    deadline_s: float | None = None
    """Seconds from the first step of `RolloutEngine.sample`, after which it yields each response that has not ended as
    far as it has come, with finish_reason deadline and at least one token."""

    def recorded(self) -> dict[str, Any]:
        """As plain JSON data, for a batch's identity; an unset limit is left out, so older batches keep their names."""
        values = {**asdict(self), "stop_ids": list(self.stop_ids)}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class SampleRequest:
    """One response to sample."""

    problem_id: str
    sample_index: int
    seed: int
    """64-bit; decides the response together with policy and settings, whatever is sampled beside it."""
    prompt_ids: tuple[int, ...]
    begun: tuple[int, ...] = ()
    """Tokens of the response that were sampled before; it goes on behind them, by noise that they have not used, as if
    it had never stopped. They count in max_new_tokens, and the sample has them again."""
    begun_logprob: float = 0.0
    """Their part of `Sample.logprob`."""


@dataclass(frozen=True)
class Sample:
    """One response that has ended, by itself or not."""

    request: SampleRequest
    token_ids: tuple[int, ...]
    """At least one; the stop token is included when it was sampled."""
    finish_reason: FinishReason
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

    @property
    def keeps(self) -> frozenset[str]:
        """Which it keeps of token_budget (it goes on with `SampleRequest.begun`) and deadline_s; left out: neither."""
        ...

    def load(self, policy_id: str, model: Any) -> None:
        """Sample from this policy from now on, awake if it slept; ``model`` holds its weights.

        A policy that is loaded already costs little. The model is the caller's, who changes it between samples.

        Raises:
            RolloutError: the engine cannot take the weights.
        """
        ...

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        """Responses in whatever order they end; whoever closes the iterator ends what is still sampled.

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
