"""The LM head without its logits: logit of the label and logsumexp of each row, in both passes a chunk at a time.

A response of 8,192 tokens over a vocabulary of 152,000 has 5 GB of logits in float32, and autograd would hold them two
or three times. Here one chunk of them exists at once: the forward pass keeps two numbers a row, the backward pass
computes the chunk again. Only that makes memory flat; a loop over chunks without it keeps every chunk's logits.

The gradient is exact whatever the upstream gradient of the two numbers is. Kernels that take gradients in the forward
pass, before the residual of a response is known, cannot do this: they scale the weight's gradient by one number for the
whole batch, and here each response has its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOGITS_PER_CHUNK = 2**28
"""Logits held at once: 1 GiB in float32, 1,766 rows at a vocabulary of 152,000."""


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
    """`label_logits` by chunks of LOGITS_PER_CHUNK // V rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        size = max(1, LOGITS_PER_CHUNK // weight.shape[0])
        parts = [
            gather(_logits(some, weight, bias), some_labels, temperature)
            for some, some_labels in zip(rows.split(size), labels.split(size), strict=True)
        ]
        label_logit, value = (torch.cat(values) for values in zip(*parts, strict=True))
        ctx.save_for_backward(rows, weight, bias, labels, value)
        ctx.temperature, ctx.size = temperature, size
        return label_logit, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_label: Tensor, to_value: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, labels, value = ctx.saved_tensors
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        to_rows = torch.empty_like(rows) if wants_rows else None
        to_weight = torch.zeros_like(weight, dtype=value.dtype) if wants_weight else None
        to_bias = torch.zeros_like(bias, dtype=value.dtype) if wants_bias else None
        for start in range(0, len(rows), ctx.size):
            chunk = slice(start, start + ctx.size)
            logits = _logits(rows[chunk], weight, bias)
            upstream = _upstream(logits, labels[chunk], value[chunk], to_label[chunk], to_value[chunk], ctx.temperature)
            if to_bias is not None:
                to_bias += upstream.sum(dim=0)
            upstream = upstream.to(rows.dtype)
            if to_rows is not None:
                to_rows[chunk] = upstream @ weight.to(rows.dtype)
            if to_weight is not None:
                _add_product(to_weight, upstream.t(), rows[chunk])
            del logits, upstream  # before the next chunk's
        return (
            to_rows,
            None if to_weight is None else to_weight.to(weight.dtype),
            None if to_bias is None else to_bias.to(bias.dtype),
            None,
            None,
        )


def _logits(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[n, V] in float32, or float64 for such weights."""
    logits = _product(rows, weight.t(), torch.promote_types(weight.dtype, torch.float32))
    return logits if bias is None else logits.add_(bias)


def _upstream(
    logits: Tensor, labels: Tensor, value: Tensor, to_label: Tensor, to_value: Tensor, temperature: float
) -> Tensor:
    """[n, V] gradient of the logits, in their place: the logsumexp's times the softmax, and at the label its own."""
    if temperature != 1:
        logits /= temperature
    upstream = logits.sub_(value[:, None]).exp_().mul_(to_value[:, None])
    upstream.scatter_add_(1, labels[:, None], to_label[:, None])
    return upstream if temperature == 1 else upstream.div_(temperature)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, summed in the precision of `total`."""
    with torch.autocast(a.device.type, enabled=False):
        if _on_matrix_units(a, b, total.dtype):
            torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
        else:
            total.addmm_(a.to(total.dtype), b.to(total.dtype))


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrix product with sums and result in `dtype`; on CUDA bfloat16 factors go to its matrix units as they are."""
    with torch.autocast(a.device.type, enabled=False):
        if _on_matrix_units(a, b, dtype):
            return torch.mm(a, b, out_dtype=dtype)
        return torch.mm(a.to(dtype), b.to(dtype))


def _on_matrix_units(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether bfloat16 factors can be multiplied as they are with a float32 result."""
    return a.is_cuda and a.dtype == b.dtype == torch.bfloat16 and dtype == torch.float32
