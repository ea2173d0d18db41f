"""Attention within each sequence of a packed row, as an implementation that transformers' models can be set to.

On CUDA in half precision short sequences go through torch's variable-length flash attention, long ones one by one
through cuDNN's, which is up to 1.6 times as fast on an H200 but plans anew for every length; elsewhere it is one call a
sequence. None builds a mask over the row, and none takes a package beside torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

NAME = "reval_packed"

LONG = 2048
"""Tokens of the average sequence from which on cuDNN takes them one by one."""
STEP = 512
"""Tokens: cuDNN's lengths are multiples of it, so that responses of up to 8,192 take 16 plans and not thousands."""

_GQA: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
"""Before torch 2.12 it took fewer key than query heads without being told."""


@torch.compiler.disable
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Tensor,
    lengths: tuple[int, ...],
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
        boundaries, lengths: as in a packed `Layout`.
        scaling: of the scores; 1 / sqrt(D) when None.
        sliding_window: tokens that a token sees, itself counted; None: all before it.

    Returns:
        [1, T, heads, D] and no attention weights.

    Raises:
        ValueError: the model asks for dropout, capped scores or a mask of its own.
    """
    if attention_mask is not None or dropout or softcap is not None:
        raise ValueError("Packed attention knows no masks, dropout or capped scores; set optimizer.packing: false.")
    longest = max(lengths)
    before = -1 if sliding_window is None or sliding_window >= longest else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, heads, D]
        if before < 0 and sum(lengths) >= LONG * len(lengths) and query.shape[3] <= 128:
            return _one_by_one(q, k, v, lengths, scaling).unsqueeze(0), None
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


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float | None) -> Tensor:
    """[T, heads, D] by cuDNN from [T, heads, D], each sequence filled up to a multiple of STEP: it plans for a length.

    What is filled in stands after the sequence, so no token of it looks there. Tokens stay the outer dimension of
    everything, gradients too: with one memory layout throughout, a plan that was made once fits always.
    """
    parts = []
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        for states in zip(*(states.split(lengths) for states in (query, key, value)), strict=True):
            length = len(states[0])
            q, k, v = (functional.pad(some, (0, 0, 0, 0, 0, -length % STEP)).transpose(0, 1)[None] for some in states)
            found = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
            parts.append(found[0].transpose(0, 1).narrow(0, 0, length))
    return torch.cat(parts)


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
