"""Attention within each sequence of a packed row, as an implementation that transformers' models can be set to.

On CUDA in half precision it is torch's own variable-length flash attention; elsewhere one call a sequence. Neither
builds a mask over the row, and neither takes a package beside torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

NAME = "reval_packed"

_GQA: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
"""Before torch 2.12 it took fewer key than query heads without being told."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Tensor,
    ends: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each sequence.

    Args:
        module: the model's attention layer, not looked at.
        query: [1, heads, T, D]; key, value: [1, key heads, T, D].
        attention_mask: None.
        boundaries, ends: as in a packed `Layout`.
        scaling: of the scores; 1 / sqrt(D) when None.
        sliding_window: tokens that a token sees, itself counted; None: all before it.

    Returns:
        [1, T, heads, D] and no attention weights.

    Raises:
        ValueError: the model asks for dropout, capped scores or a mask of its own.
    """
    if attention_mask is not None or dropout or softcap is not None:
        raise ValueError("Packed attention knows no masks, dropout or capped scores; set optimizer.packing: false.")
    lengths = [end - start for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    longest = max(lengths)
    before = -1 if sliding_window is None or sliding_window >= longest else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, heads, D]
        attended = varlen_attn(
            q, k, v, boundaries, boundaries, longest, longest, scale=scaling, window_size=(before, 0), **_GQA
        )
        return attended.unsqueeze(0), None  # type: ignore[union-attr]
    parts = [
        functional.scaled_dot_product_attention(
            q, k, v, attn_mask=_window(q, before), is_causal=before < 0, scale=scaling, enable_gqa=True
        )
        for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _window(query: Tensor, before: int) -> Tensor | None:
    """[T, T] which tokens see which, the `before` before them and themselves; None where causality is all."""
    if before < 0:
        return None
    places = torch.arange(query.shape[2], device=query.device)
    distance = places[:, None] - places
    return (distance >= 0) & (distance <= before)


AttentionInterface.register(NAME, packed_attention)


@contextmanager
def attending_packed(model: PreTrainedModel) -> Iterator[None]:
    """The model attends within the sequences of a packed row; a backward pass that recomputes belongs inside, too."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
