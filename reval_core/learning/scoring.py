"""Log-probabilities and root values of responses under a model, with gradient.

The logits at position t predict the token at t + 1, so V(s_1) and log pi(a_1|s_1) both come from the last prompt token.
Only positions that predict a response token reach the LM head, whose output is float32 whatever the
precision of the rest: sums over thousands of tokens of anything coarser are off by whole nats.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

PLAIN_HEAD_FAMILIES = frozenset(
    {"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Model types whose logits are the LM head applied to the body's last hidden state, and nothing after it."""

LOGITS_PER_CHUNK = 2**28
"""Logits held at once: 1 GiB in float32, 1,766 positions at a vocabulary of 152,000."""


@dataclass(frozen=True)
class Scores:
    """Scores of B responses, in float32 (float64 for float64 models), with gradient."""

    logprob: Tensor
    """[B] sum over response tokens of log pi, nats."""
    root_value: Tensor
    """[B] V(s_1), logsumexp of the logits at the last prompt token, nats."""
    token_logprob: Tensor | None = None
    """[B, T] log pi of each response token, at its own position; 0 elsewhere."""
    value: Tensor | None = None
    """[B, T] V of the state before each response token; 0 elsewhere."""


def score(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    *,
    token_logprobs: bool = False,
    temperature: float = 1.0,
) -> Scores:
    """Score the response in each row of a padded batch.

    Padding may stand on either side and hold any ids; they never reach the model.

    Args:
        model: a causal language model in Hugging Face form (`.logits` of a call).
        input_ids: [B, T] prompt and response, padded.
        attention_mask: [B, T] nonzero at prompt and response tokens.
        response_mask: [B, T] nonzero at response tokens.
        token_logprobs: also return `token_logprob` and `value`.
        temperature: the policy is softmax(logits / temperature), in log pi and V alike.

    Raises:
        ValueError: shapes differ, a row has no response token, or one that is padding or has no token before it.
    """
    attended, response = attention_mask.bool(), response_mask.bool()
    _check(input_ids, attended, response, temperature)
    input_ids = input_ids.masked_fill(~attended, 0)
    position_ids = (attended.long().cumsum(dim=1) - 1).clamp(min=0)  # [B, T]

    tokens = response.flatten().nonzero().squeeze(1)  # [N] response tokens, row by row, as indices into B * T
    labels = input_ids.flatten()[tokens].long()  # [N]
    label_logit, value = _logits_of_labels(
        model, input_ids, attended.long(), position_ids, tokens - 1, labels, temperature
    )

    # [B, T]; the sums over tokens run in float64 and are rounded once
    token_logprob = _spread(label_logit - value, tokens, response)
    logprob = token_logprob.sum(dim=1, dtype=torch.float64).to(token_logprob.dtype)
    lengths = response.sum(dim=1)
    first = lengths.cumsum(dim=0) - lengths  # [B] each row's first response token, among the N
    root_value = value.index_select(0, first)
    if not token_logprobs:
        return Scores(logprob, root_value)
    return Scores(logprob, root_value, token_logprob, _spread(value, tokens, response))


def _logits_of_labels(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    positions: Tensor,
    labels: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Logit of each label and logsumexp of all logits at the N flat positions: two tensors [N]."""
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "use_cache": False,
    }
    if isinstance(model, PreTrainedModel) and model.config.model_type in PLAIN_HEAD_FAMILIES:
        hidden = model.base_model(**inputs).last_hidden_state  # [B, T, D]
        rows = hidden.flatten(0, 1).index_select(0, positions)  # [N, D]
        return _head_in_chunks(rows, labels, model.get_output_embeddings(), temperature)
    logits = model(**_accepted(model, inputs)).logits  # [B, T, V]
    return _gather(logits.flatten(0, 1).index_select(0, positions), labels, temperature)


def _head_in_chunks(rows: Tensor, labels: Tensor, head: nn.Linear, temperature: float) -> tuple[Tensor, Tensor]:
    """LM head over rows [N, D] so that at most LOGITS_PER_CHUNK logits exist at once, in both passes."""
    size = max(1, LOGITS_PER_CHUNK // head.weight.shape[0])
    if len(rows) <= size:
        return _head(rows, labels, head, temperature)
    parts = [
        checkpoint(
            _head,
            some_rows,
            some_labels,
            head,
            temperature,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for some_rows, some_labels in zip(rows.split(size), labels.split(size), strict=True)
    ]
    label_logits, values = zip(*parts, strict=True)
    return torch.cat(label_logits), torch.cat(values)


def _head(rows: Tensor, labels: Tensor, head: nn.Linear, temperature: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(head.weight.dtype, torch.float32)
    bias = None if head.bias is None else head.bias.to(dtype)
    with torch.autocast(rows.device.type, enabled=False):
        logits = functional.linear(rows.to(dtype), head.weight.to(dtype), bias)  # [N, V]
    return _gather(logits, labels, temperature)


def _gather(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1), logits.logsumexp(dim=1)


def _spread(values: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Values [N] put at the flat indices `tokens` of a zero [B, T]."""
    return values.new_zeros(mask.numel()).index_copy(0, tokens, values).view(mask.shape)


def _check(input_ids: Tensor, attended: Tensor, response: Tensor, temperature: float) -> None:
    if not input_ids.shape == attended.shape == response.shape or input_ids.dim() != 2:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (input_ids, attended, response))
        raise ValueError(f"input_ids, attention_mask and response_mask must all be [B, T]; got {shapes}.")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0.")
    empty = ~response.any(dim=1)
    if bool(empty.any()):
        raise ValueError(f"response_mask: rows {empty.nonzero().flatten().tolist()} have no response token.")
    before = torch.zeros_like(attended)
    before[:, 1:] = attended[:, :-1]
    bad = (response & ~(attended & before)).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"response_mask: in rows {bad.nonzero().flatten().tolist()} a response token is padding or has no token "
            "right before it; a response follows at least one prompt token."
        )


def _accepted(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Those inputs that the model's forward has a parameter for."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return inputs
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in inputs.items() if name in names}
