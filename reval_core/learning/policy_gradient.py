"""GRPO and Dr. GRPO as pure tensor functions: the policy-gradient baselines that ReVal is compared with.

They differ from published recipes in nothing but what is left out: no KL term and no entropy term.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reval_core.learning.objective import at_least_float32, given, group_mean

ADVANTAGE_EPS = 1e-6


def group_advantages(reward: Tensor, group: Tensor, normalise: bool = True) -> Tensor:
    """Reward minus its group's mean, divided by the group's standard deviation if `normalise`: [B] -> [B].

    normalise=True is GRPO (arXiv 2402.03300): (r - mean) / (std + 1e-6), std with n - 1 in the denominator. False is
    Dr. GRPO (arXiv 2503.20783): r - mean.

    Raises:
        ValueError: a group has one member.
    """
    reward = at_least_float32(reward)
    centred = reward - group_mean(reward, group)
    if not normalise:
        return centred
    size = (group.unsqueeze(1) == group.unsqueeze(0)).sum(dim=1)
    variance = group_mean(centred.square(), group) * size / (size - 1)
    return centred / (variance.sqrt() + ADVANTAGE_EPS)


def policy_gradient_loss(
    *,
    token_logprob: Tensor | None,
    old_token_logprob: Tensor | None,
    advantage: Tensor | None,
    response_mask: Tensor,
    clip_low: float,
    clip_high: float,
    weight: Tensor | None = None,
    count: int | float | Tensor | None = None,
) -> Tensor:
    """Clipped policy-gradient loss: - sum over tokens of min(ratio A, clip(ratio, 1 - low, 1 + high) A) / count.

    Args:
        token_logprob: [B, T] log pi of the token at t, with gradient.
        old_token_logprob: [B, T] the same at the start of the round.
        advantage: [B], the same for all tokens of a response.
        response_mask: [B, T] true at response tokens.
        clip_low, clip_high: how far the ratio may fall below and rise above 1.
        weight: [B]; 1 when left out.
        count: what the sum is divided by, the same in all parts of an update. The number of response tokens of the
            whole update gives the token mean of DAPO (arXiv 2503.14476); a constant gives Dr. GRPO. By default the
            response tokens given here.

    Raises:
        ValueError: an argument is missing, shapes differ, or count is not above 0.
    """
    if token_logprob is None:
        raise ValueError("token_logprob is missing, which a policy-gradient loss needs.")
    token_logprob = at_least_float32(token_logprob)
    mask = response_mask.bool()
    count = mask.sum() if count is None else count
    if not count > 0:
        raise ValueError(f"count is {count}; a loss needs at least one token.")
    old = given("old_token_logprob", old_token_logprob, like=token_logprob)
    scale = given("advantage", advantage, like=token_logprob[:, 0]).unsqueeze(1)  # [B, 1]
    # outside the response both log-probs count as equal, so that nothing there can make an inf times 0
    ratio = (token_logprob - old).masked_fill(~mask, 0.0).exp()
    gain = torch.minimum(ratio * scale, ratio.clamp(1 - clip_low, 1 + clip_high) * scale)
    if weight is not None:
        gain = given("weight", weight, like=token_logprob[:, 0]).unsqueeze(1) * gain
    return -gain.masked_fill(~mask, 0.0).sum() / count
