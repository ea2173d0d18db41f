"""The precision that a model computes in, apart from that of its weights.

Weights and gradients are float32, since an update of 1e-6 would vanish in the 8 significant bits of bfloat16. What
computes in bfloat16 are rounded copies of the weights, made once an update; the residual stream is bfloat16 with
them. A reference kept in bfloat16 alone is the same function to the bit: its weights were rounded in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from reval_core.errors import LearningError


def is_bfloat16(compute_dtype: torch.dtype | str) -> bool:
    """Whether the model computes in bfloat16 rather than in its weights' precision; LearningError for anything else."""
    name = str(compute_dtype).removeprefix("torch.")
    if name not in ("float32", "bfloat16"):
        raise LearningError(f"compute_dtype is {name!r}; known are 'float32' and 'bfloat16'.")
    return name == "bfloat16"


@contextmanager
def computing_in(model: nn.Module, compute_dtype: torch.dtype | str) -> Iterator[None]:
    """For bfloat16, rounded copies stand in for the model's parameters inside; a backward pass belongs inside, too.

    A copy's gradient is added to its parameter's float32 `.grad` as soon as a backward pass has it, and dropped, so
    micro-batches add up in float32.
    """
    if not is_bfloat16(compute_dtype):
        yield
        return
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter.is_floating_point() and parameter.dtype != torch.bfloat16
    ]
    copies = {parameter: _rounded_copy(parameter) for _, _, parameter in places}  # one where weights are tied
    try:
        for module, name, parameter in places:
            setattr(module, name, copies[parameter])
        yield
    finally:
        for module, name, parameter in places:
            setattr(module, name, parameter)


def round_weights(model: nn.Module) -> None:
    """Round a frozen model's parameters to bfloat16 for good. Buffers, such as rotary frequencies, stay as they are."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)


def to_host(model: nn.Module) -> None:
    """Move a frozen model's parameters to host memory, pinned where there is a GPU; its few buffers stay."""
    for parameter in model.parameters():
        host = parameter.data.to("cpu")
        parameter.data = host.pin_memory() if torch.cuda.is_available() else host


@contextmanager
def on_device(model: nn.Module, device: str) -> Iterator[nn.Module]:
    """A model whose parameters `to_host` took away has them on the device inside; any other is left as it is."""
    away = [(parameter, parameter.data) for parameter in model.parameters() if parameter.device.type == "cpu"]
    if device == "cpu" or not away:
        yield model
        return
    try:
        for parameter, host in away:
            parameter.data = host.to(device, non_blocking=True)
        yield model
    finally:
        for parameter, host in away:
            parameter.data = host


def _rounded_copy(master: nn.Parameter) -> nn.Parameter:
    copy = nn.Parameter(master.detach().to(torch.bfloat16), requires_grad=master.requires_grad)
    if master.requires_grad:
        copy.register_post_accumulate_grad_hook(_added_to(master))
    return copy


def _added_to(master: nn.Parameter) -> Callable[[Tensor], None]:
    def add(copy: Tensor) -> None:
        assert copy.grad is not None
        if master.grad is None:
            master.grad = copy.grad.to(master.dtype)
        else:
            master.grad.add_(copy.grad)
        copy.grad = None

    return add
