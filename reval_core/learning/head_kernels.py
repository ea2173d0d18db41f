"""The head's two passes over a slice of float32 logits as Triton kernels: each reads it once.

Eager torch takes six passes over memory for a logsumexp and seven for the gradient. Triton comes with torch's CUDA
wheels; where it does not, `head` runs the same in eager torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def _fold_kernel(logits, labels, label_logit, value, start, width, temperature, BLOCK: tl.constexpr):  # type: ignore
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    highest = tl.full((BLOCK,), -float("inf"), tl.float32)  # of each lane, with the sum beside it
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        inside = first + columns < width
        x = tl.load(logits + row * width + first + columns, mask=inside, other=-float("inf")) / temperature
        higher = tl.maximum(highest, x)
        # a lane that has seen nothing yet stays at 0: -inf minus -inf is no number
        total = tl.where(higher == -float("inf"), 0.0, total * tl.exp(highest - higher) + tl.exp(x - higher))
        highest = higher
    top = tl.max(highest, axis=0)
    before = tl.load(value + row)
    higher = tl.maximum(top, before)
    seen = tl.sum(total * tl.exp(highest - higher), axis=0) + tl.exp(before - higher)
    tl.store(value + row, higher + tl.log(seen))
    label = tl.load(labels + row) - start
    if (label >= 0) & (label < width):
        tl.store(label_logit + row, tl.load(logits + row * width + label) / temperature)


@triton.jit
def _upstream_kernel(  # type: ignore
    logits, labels, value, to_label, to_value, upstream, start, width, temperature, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(logits + row * width + columns, mask=inside, other=0.0) / temperature
    gradient = tl.exp(x - tl.load(value + row)) * tl.load(to_value + row)
    gradient += tl.where(columns + start == tl.load(labels + row), tl.load(to_label + row), 0.0)
    tl.store(upstream + row * width + columns, gradient / temperature, mask=inside)


def fold(logits: Tensor, labels: Tensor, label_logit: Tensor, value: Tensor, start: int, temperature: float) -> None:
    """Take a slice's logits [N, v] into `label_logit` [N] and `value` [N], in place.

    Args:
        logits: [N, v] float32, contiguous.
        labels: [N] int64, of the whole vocabulary.
        start: the slice's first word.
    """
    rows, width = logits.shape
    _fold_kernel[(rows,)](
        logits, labels, label_logit, value, start, width, float(temperature), BLOCK=BLOCK, num_warps=8
    )


def upstream(
    logits: Tensor,
    labels: Tensor,
    value: Tensor,
    to_label: Tensor,
    to_value: Tensor,
    start: int,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """[N, v] gradient of a slice's logits, in `dtype`."""
    rows, width = logits.shape
    found = torch.empty_like(logits, dtype=dtype)
    _upstream_kernel[(rows, triton.cdiv(width, BLOCK))](
        logits, labels, value, to_label, to_value, found, start, width, float(temperature), BLOCK=BLOCK, num_warps=8
    )
    return found
