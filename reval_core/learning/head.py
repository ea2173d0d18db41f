"""The LM head without its logits: logit of the label and logsumexp of each row, in both passes a chunk at a time.

A response of 8,192 tokens over a vocabulary of 152,000 has 5 GB of logits in float32, and autograd would hold them two
or three times. Here one chunk of them exists at once: the forward pass keeps two numbers a row, the backward pass
computes the chunk again. Only that makes memory flat; a loop over chunks without it keeps every chunk's logits.

The gradient is exact whatever the upstream gradient of the two numbers is. Kernels that take gradients in the forward
pass, before the residual of a response is known, cannot do this: they scale the weight's gradient by one number for the
whole batch, and here each response has its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON:
    from reval_core.learning import head_kernels

LOGITS_PER_CHUNK = 2**27
"""Logits held at once: 512 MiB in float32, 8,192 words of the vocabulary for 16,384 rows."""
ALIGNED = 256
"""Words: slices of the vocabulary are multiples of it. On an H200 others made the head take three times as long."""


def label_logits(
    rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Logit of each label and logsumexp of each row's logits, divided by the temperature: [N] and [N].

    The logits are never rounded below float32: products of half-precision rows and weights are summed in float32, and
    so they reach the logsumexp.

    Args:
        rows: [N, D] hidden states.
        weight: [V, D] of the head.
        bias: [V] of the head, or None.
        labels: [N] int64 below V.
        temperature: above 0.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if rows.dtype == weight.dtype == dtype and rows.shape[0] * weight.shape[0] <= LOGITS_PER_CHUNK:
        with torch.autocast(rows.device.type, enabled=False):
            return gather(functional.linear(rows, weight, bias), labels, temperature)
    label_logit, value = _LabelLogits.apply(rows, weight, bias, labels, temperature)
    return label_logit, value


def gather(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same two from logits [N, V] of any precision."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1), logits.logsumexp(dim=1)


class _LabelLogits(torch.autograd.Function):
    """`label_logits` by slices of the vocabulary that have LOGITS_PER_CHUNK logits, all rows of a slice at once.

    Sliced so, rather than by rows, a slice of the weight's gradient is one product, summed in float32 inside it: no
    float32 sum of the weight's size is held, nor read and written once a chunk.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(weight.dtype, torch.float32)
        label_logit = rows.new_zeros(len(rows), dtype=dtype)
        value = rows.new_full((len(rows),), -torch.inf, dtype=dtype)
        for part in _slices(rows, weight):
            logits = _logits(rows, weight, bias, part)
            _fold(logits, labels, label_logit, value, part.start, temperature)
            del logits  # before the next slice's
        ctx.save_for_backward(rows, weight, bias, labels, value)
        ctx.temperature = temperature
        return label_logit, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_label: Tensor, to_value: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the two results [N] passed on to rows, weight and bias; each slice's logits are made again."""
        rows, weight, bias, labels, value = ctx.saved_tensors
        to_label, to_value = to_label.contiguous(), to_value.contiguous()  # an expanded number, of a sum, is neither
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        to_rows = torch.zeros_like(rows, dtype=value.dtype) if wants_rows else None
        to_weight = torch.empty_like(weight) if wants_weight else None
        to_bias = torch.empty_like(bias) if wants_bias else None
        for part in _slices(rows, weight):
            logits = _logits(rows, weight, bias, part)
            upstream = _upstream(logits, labels, value, to_label, to_value, part.start, ctx.temperature, weight.dtype)
            if to_bias is not None:
                to_bias[part] = upstream.sum(dim=0)
            if to_rows is not None:
                _add_product(to_rows, upstream, weight[part])
            if to_weight is not None:
                torch.mm(upstream.t(), rows.to(weight.dtype), out=to_weight[part])
            del logits, upstream
        return None if to_rows is None else to_rows.to(rows.dtype), to_weight, to_bias, None, None


def _slices(rows: Tensor, weight: Tensor) -> Iterator[slice]:
    width = max(1, LOGITS_PER_CHUNK // len(rows))
    if width > ALIGNED:  # rows of logits that start anywhere keep a GPU's matrix products from its fast kernels
        width -= width % ALIGNED
    for start in range(0, len(weight), width):
        yield slice(start, min(start + width, len(weight)))


def _logits(rows: Tensor, weight: Tensor, bias: Tensor | None, part: slice) -> Tensor:
    """[N, v] of a slice of the vocabulary, in float32, or float64 for such weights."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        if _on_matrix_units(rows, weight, dtype):
            logits = torch.mm(rows, weight[part].t(), out_dtype=dtype)
        else:
            logits = torch.mm(rows.to(dtype), weight[part].t().to(dtype))
    return logits if bias is None else logits.add_(bias[part])


def _fold(logits: Tensor, labels: Tensor, label_logit: Tensor, value: Tensor, start: int, temperature: float) -> None:
    """Take the logits [N, v] of the slice from `start` on into the two numbers [N], in place."""
    if _in_triton(logits):
        head_kernels.fold(logits, labels, label_logit, value, start, temperature)
        return
    if temperature != 1:
        logits /= temperature
    place, inside = _places(labels, start, logits.shape[1])
    label_logit.copy_(torch.where(inside, logits.gather(1, place).squeeze(1), label_logit))
    value.copy_(torch.logaddexp(value, logits.logsumexp(dim=1)))


def _upstream(
    logits: Tensor,
    labels: Tensor,
    value: Tensor,
    to_label: Tensor,
    to_value: Tensor,
    start: int,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """[N, v] gradient of a slice's logits, which are lost: the logsumexp's times the softmax, plus the label's own."""
    if _in_triton(logits):
        return head_kernels.upstream(logits, labels, value, to_label, to_value, start, temperature, dtype)
    if temperature != 1:
        logits /= temperature
    upstream = logits.sub_(value.unsqueeze(1)).exp_().mul_(to_value.unsqueeze(1))
    place, inside = _places(labels, start, logits.shape[1])
    upstream.scatter_add_(1, place, torch.where(inside, to_label, 0.0).unsqueeze(1))
    return (upstream if temperature == 1 else upstream.div_(temperature)).to(dtype)


def _places(labels: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """[N, 1] columns of the labels in a slice, any one where they are not in it, and [N] whether they are."""
    place = labels - start
    return place.clamp(0, width - 1).unsqueeze(1), (place >= 0) & (place < width)


def _in_triton(logits: Tensor) -> bool:
    return HAS_TRITON and logits.is_cuda and logits.dtype == torch.float32


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, summed in the precision of `total`."""
    with torch.autocast(a.device.type, enabled=False):
        if _on_matrix_units(a, b, total.dtype):
            torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
        else:
            total.addmm_(a.to(total.dtype), b.to(total.dtype))


def _on_matrix_units(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether bfloat16 factors can be multiplied as they are with a float32 result."""
    return a.is_cuda and a.dtype == b.dtype == torch.bfloat16 and dtype == torch.float32
