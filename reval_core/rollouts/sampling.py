"""One step of sampling: from logits and one uniform number to a token, as a pure function."""

from __future__ import annotations

import torch
from torch import Tensor

from reval_core.errors import PolicyError
from reval_core.rollouts.engine import SamplingSettings


def sample_step(logits: Tensor, uniform: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """Draw one token for each row by inverting the cumulative distribution.

    Args:
        logits: [B, V] raw logits.
        uniform: [B] float64 in [0, 1), each row's own noise.
        settings: temperature, top_k, top_p.

    Returns:
        tokens [B] int64, and [B] float32 log softmax(logits / temperature) of them, before top_k and top_p.

    Raises:
        PolicyError: a row's logits are no distribution (NaN, +inf, or all -inf).
    """
    logprobs = torch.log_softmax(logits.float() / settings.temperature, dim=-1)
    probabilities = logprobs.double().exp()
    if settings.top_k or settings.top_p < 1.0:
        probabilities = _cut(probabilities, settings.top_k, settings.top_p)
    cumulative = probabilities.cumsum(dim=-1)
    if bool(cumulative[:, -1].isnan().any()):
        raise PolicyError("The model's logits are not finite. Are its weights whole, and does its precision suit it?")
    target = (uniform.to(cumulative.device) * cumulative[:, -1]).unsqueeze(-1)
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    # a target in the last rounding error of the sum would fall behind the last token with any probability
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(dim=-1)
    tokens = torch.minimum(tokens, last)
    return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _cut(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k:
        keep[:, top_k:] = False
    if top_p < 1.0:
        ordered = ordered * keep
        before = ordered.cumsum(dim=-1) - ordered
        keep &= before < top_p * ordered.sum(dim=-1, keepdim=True)  # the token that crosses the mass is kept
    return probabilities * torch.zeros_like(keep).scatter(-1, index, keep)
