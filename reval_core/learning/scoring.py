"""Log-probabilities and root values of responses under a model, with gradient.

The logits at position t predict the token at t + 1, so V(s_1) and log pi(a_1|s_1) both come from the last prompt token.
Only positions that predict a response token reach the LM head, whose output is float32 whatever the
precision of the rest: sums over thousands of tokens of anything coarser are off by whole nats.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reval_core.learning.head import gather, label_logits
from reval_core.learning.layout import Layout, masked_layout

PLAIN_HEAD_FAMILIES = frozenset(
    {"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Model types whose logits are the LM head applied to the body's last hidden state, and nothing after it."""

OWN_FORWARD = "label_and_value"
"""Method of a model whose weights have to be brought together before `label_and_value` can use them (`sharding`)."""


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
    _check(input_ids, attended, response)
    layout = masked_layout(input_ids, attended, response)
    return score_layout(model, layout, token_logprobs=token_logprobs, temperature=temperature)


def score_layout(model: nn.Module, layout: Layout, *, token_logprobs: bool = False, temperature: float = 1.0) -> Scores:
    """`score` of sequences that are laid out already; on a GPU the host never waits for it.

    A packed layout takes a model that attends packed (`attention.attending_packed`).
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0.")
    own = getattr(model, OWN_FORWARD, None)
    label_logit, value = label_and_value(model, layout, temperature) if own is None else own(layout, temperature)  # [N]

    # [B, T]; the sums over tokens run in float64 and are rounded once
    token_logprob = _spread(label_logit - value, layout)
    logprob = token_logprob.sum(dim=1, dtype=torch.float64).to(token_logprob.dtype)
    root_value = value.index_select(0, layout.first)
    if not token_logprobs:
        return Scores(logprob, root_value)
    return Scores(logprob, root_value, token_logprob, _spread(value, layout))


def has_plain_head(model: nn.Module) -> TypeGuard[PreTrainedModel]:
    """Whether the model's logits are its LM head applied to its body's last hidden state."""
    return isinstance(model, PreTrainedModel) and model.config.model_type in PLAIN_HEAD_FAMILIES


def label_and_value(model: nn.Module, layout: Layout, temperature: float) -> tuple[Tensor, Tensor]:
    """Logit of each response token and logsumexp of all logits where it is predicted: two tensors [N]."""
    inputs: dict[str, Any] = {
        "input_ids": layout.input_ids,
        "attention_mask": layout.attention_mask,
        "position_ids": layout.position_ids,
        "use_cache": False,
    }
    if layout.boundaries is not None:
        inputs |= {"boundaries": layout.boundaries, "lengths": layout.lengths}
    if has_plain_head(model):
        hidden = model.base_model(**inputs).last_hidden_state  # [R, W, D]
        rows = hidden.flatten(0, 1).index_select(0, layout.predicting)  # [N, D]
        head = model.get_output_embeddings()
        return label_logits(rows, head.weight, head.bias, layout.labels, temperature)
    logits = model(**_accepted(model, inputs)).logits  # [R, W, V]
    return gather(logits.flatten(0, 1).index_select(0, layout.predicting), layout.labels, temperature)


def _spread(values: Tensor, layout: Layout) -> Tensor:
    """Values [N] put at the response's cells of a zero [B, T]."""
    mask = layout.response_mask
    return values.new_zeros(mask.numel()).index_copy(0, layout.cells, values).view(mask.shape)


def _check(input_ids: Tensor, attended: Tensor, response: Tensor) -> None:
    if not input_ids.shape == attended.shape == response.shape or input_ids.dim() != 2:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (input_ids, attended, response))
        raise ValueError(f"input_ids, attention_mask and response_mask must all be [B, T]; got {shapes}.")
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
