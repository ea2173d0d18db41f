"""Does an engine with weights of its own sample from the policy that it was given? Measured after each swap.

Stale weights, an output head that was left behind, cached prompts of the policy before, another precision or another
temperature make no error: responses come, and learning goes wrong slowly. Log-probabilities tell at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reval_core.config_engine import SyncCheckConfig
from reval_core.errors import RolloutError
from reval_core.rollouts.engine import RolloutEngine, SampleRequest, SamplingSettings
from reval_core.rollouts.logprobs import response_logprobs

ABOVE = {"float32": 1e-3, "bfloat16": 0.1}
"""Mean difference in nats a token that rounding does not reach, by precision."""


@dataclass(frozen=True)
class Sync:
    """The engine's log-probabilities held against the model's, in nats a token of a response."""

    mean: float
    worst: float
    tokens: int


def measure_sync(
    engine: RolloutEngine,
    model: Any,
    requests: Sequence[SampleRequest],
    settings: SamplingSettings,
    check: SyncCheckConfig,
    *,
    compute_dtype: str,
) -> Sync:
    """Sample a few short responses to the first prompts, and compute them by the model in a whole forward pass.

    They are drawn at the settings' temperature without cuts, where the engine's numbers are its own, and thrown away.

    Raises:
        RolloutError: the engine gave other responses than were asked for, or empty ones.
    """
    short = replace(
        settings,
        top_k=0,
        top_p=1.0,
        max_new_tokens=min(check.tokens, settings.max_new_tokens),
        token_budget=None,
        deadline_s=None,
    )
    asked = requests[: check.samples]
    samples = list(engine.sample(asked, short))
    if len(samples) != len(asked) or not all(sample.token_ids for sample in samples):
        empty = sum(not sample.token_ids for sample in samples)
        raise RolloutError(
            f"The engine {engine.name} was asked for {len(asked)} responses and gave {len(samples)}, {empty} of them "
            "without any token. Each request is answered once, by at least one token."
        )
    whole = response_logprobs(model, samples, settings.temperature, compute_dtype=compute_dtype)
    apart = [abs(s.logprob - ours) / len(s.token_ids) for s, ours in zip(samples, whole, strict=True)]
    return Sync(sum(apart) / len(apart), max(apart), sum(len(s.token_ids) for s in samples))


def check_sync(
    sync: Sync, engine: RolloutEngine, policy_id: str, check: SyncCheckConfig, *, compute_dtype: str
) -> None:
    """Stop where the engine samples from something else than the policy.

    Raises:
        RolloutError: the mean difference is above the bound.
    """
    above = ABOVE[compute_dtype] if check.above is None else check.above
    if not sync.mean <= above:
        raise RolloutError(
            f"The engine {engine.name} was given {policy_id}, but its log-probabilities differ from the model's by "
            f"{sync.mean:.3g} nats a token, at worst {sync.worst:.3g} (rollouts.engine.check.above: {above:g}). It "
            "samples from other weights, in another precision or at another temperature. Nothing of it was stored; "
            "docs/engines.md says what to look for."
        )
