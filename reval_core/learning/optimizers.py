"""AdamW with its two moments in float32 on the device, in 8 bits, or paged out to the host; and their state as tensors.

The lean ones are bitsandbytes'. torchao's were looked at: its 8-bit AdamW is compiled anew for every shape, and
transformers imports all of torchao where it is there; its offloading one copies gradients away as the backward pass has
them, before they are clipped or found not finite.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reval_core.config import OptimizerConfig
from reval_core.errors import ConfigError, LearningError

LEAN = {"adamw_8bit": "AdamW8bit", "adamw_paged": "PagedAdamW32bit"}
"""Names of the classes of bitsandbytes."""
KEPT = {"adamw": ("step", "exp_avg", "exp_avg_sq")} | dict.fromkeys(
    LEAN, ("step", "state1", "state2", "absmax1", "absmax2")
)
"""What is state; the tables of bitsandbytes' 8-bit numbers are constant."""

Named = Mapping[str, nn.Parameter]


def make_optimizer(config: OptimizerConfig, parameters: Named) -> torch.optim.Optimizer:
    """The optimizer, without state.

    Raises:
        ConfigError: its library is not installed.
    """
    values = list(parameters.values())
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.use == "adamw":
        # fused: one pass over each parameter, with nothing of its size beside it
        return torch.optim.AdamW(values, fused=all(value.is_cuda for value in values), **settings)
    return getattr(library(config.use), LEAN[config.use])(values, **settings)


def library(use: str) -> Any:
    """Where a lean optimizer comes from.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("bitsandbytes.optim")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"optimizer.use is {use!r}, and the package bitsandbytes is not installed. pip install -e '.[lean]', or "
            "set it to adamw."
        ) from error


def state_of(optimizer: torch.optim.Optimizer, use: str, parameters: Named) -> dict[str, Tensor]:
    """The optimizer's state as it is, by name; what is a plain number there as a tensor."""
    return {
        f"{use}.{moment}.{name}": torch.as_tensor(value).detach()
        for name, parameter in parameters.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
        if moment in KEPT[use]
    }


def state_tensors(optimizer: torch.optim.Optimizer, use: str, parameters: Named) -> dict[str, Tensor]:
    """Copies of the optimizer's state on the CPU, ready for safetensors."""
    state = state_of(optimizer, use, parameters)
    return {name: value.to("cpu", copy=True).contiguous() for name, value in state.items()}


def emptied(config: OptimizerConfig, parameters: Named, names: Iterable[str]) -> torch.optim.Optimizer:
    """A new AdamW with room for a state of these names, which is to be read into `state_of` of it."""
    optimizer, known = make_optimizer(config, parameters), set(names)
    for index, (name, parameter) in enumerate(parameters.items()):
        if f"{config.use}.step.{name}" in known:
            _empty(optimizer, config.use, parameter, index)
    return optimizer


def restored(config: OptimizerConfig, parameters: Named, tensors: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """A new optimizer with the state that `state_tensors` gave.

    Raises:
        LearningError: tensors are missing, unknown, or of another model's shape.
    """
    optimizer = make_optimizer(config, parameters)
    left = dict(tensors)
    for index, (name, parameter) in enumerate(parameters.items()):
        if f"{config.use}.step.{name}" not in left:
            continue  # it never had a gradient
        state = _empty(optimizer, config.use, parameter, index)
        for moment in (moment for moment in KEPT[config.use] if moment in state):
            try:
                value = left.pop(f"{config.use}.{moment}.{name}")
            except KeyError as error:
                raise LearningError(f"The optimizer state lacks {error}; the checkpoint is not complete.") from error
            _take(state, moment, value)
    other = next((use for use in KEPT if use != config.use and any(name.startswith(f"{use}.") for name in left)), None)
    if other is not None:
        raise LearningError(
            f"The optimizer state is of {other}, and optimizer.use is {config.use!r}: moments are not carried from one "
            "to the other. Leave optimizer.use as it was, or start a run of its own."
        )
    if left:
        raise LearningError(
            f"The optimizer state is of another model or optimizer: it has {sorted(left)[:3]}, unknown here."
        )
    return optimizer


def _empty(optimizer: Any, use: str, parameter: nn.Parameter, index: int) -> dict[str, Any]:
    """The state of a parameter before its first step."""
    if use != "adamw":
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
        return optimizer.state[parameter]
    optimizer.state[parameter] = {
        # where it is not fused AdamW keeps the count on the CPU
        "step": torch.zeros((), device=parameter.device if parameter.is_cuda else "cpu"),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }
    return optimizer.state[parameter]


def _take(state: dict[str, Any], moment: str, value: Tensor) -> None:
    mine = state[moment]
    if not isinstance(mine, Tensor):  # bitsandbytes counts steps by a plain number
        state[moment] = int(value)
        return
    if mine.shape != value.shape or mine.dtype != value.dtype:
        raise LearningError(
            f"The optimizer state is of another model or optimizer: {moment} is {tuple(value.shape)} in {value.dtype}, "
            f"here {tuple(mine.shape)} in {mine.dtype}."
        )
    mine.copy_(value)
