"""What a forward pass keeps for its backward pass, and with which kernels a model's small operations run.

Both are set once on a model, the policy's and its reference's alike, before anything is scored.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from reval_core.errors import ConfigError

Checkpointing = bool | Literal["gates", "mlp"]
Kernels = Literal["torch", "liger"]


def checkpoint_activations(model: PreTrainedModel, what: Checkpointing, kernels: Kernels = "torch") -> None:
    """Recompute in the backward pass what is named rather than keep it.

    "gates": the gated product of each MLP, a third of its wide activations, for one pass over memory. "mlp": all inside
    the MLPs, for two of their three products again. True: whole layers, which keep one hidden state each, for a forward
    pass. What is computed is the same to the bit. For a model that has been set to `kernels`.

    Raises:
        ConfigError: the model's MLPs are built in another way, or its layers cannot be recomputed.
    """
    if what is True:
        if not model.supports_gradient_checkpointing:
            raise ConfigError(
                f"model.gradient_checkpointing is true, and {type(model).__name__} has none. Set it to false."
            )
        model.gradient_checkpointing_enable()
    elif what is not False:
        blocks = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "mlp"]
        gated = all(
            hasattr(block, name) for block in blocks for name in ("gate_proj", "up_proj", "down_proj", "act_fn")
        )
        if not blocks or (what == "gates" and not gated):
            raise ConfigError(
                f"model.gradient_checkpointing is {what!r}, and layers of {type(model).__name__} have no such MLPs. "
                "Set it to true or false."
            )
        for block in blocks:
            if not isinstance(block.__dict__.get("forward"), partial):  # else it has been set before
                block.forward = partial(_gate_recomputed, block, kernels) if what == "gates" else _recomputed(block)


def _recomputed(block: nn.Module) -> partial[Tensor]:
    return partial(_without_keeping, block.forward)


def _without_keeping(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """The function's value, of which the backward pass finds the inputs and no more."""
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def _gate_recomputed(block: Any, kernels: Kernels, hidden: Tensor) -> Tensor:
    gate, up = block.gate_proj(hidden), block.up_proj(hidden)
    # the last product is not computed again: what it needs is there as soon as it begins
    return _without_keeping(_down, block, kernels, gate, up)


def _down(block: Any, kernels: Kernels, gate: Tensor, up: Tensor) -> Tensor:
    if kernels == "liger":
        product = importlib.import_module("liger_kernel.transformers.functional").liger_swiglu(gate, up)
    else:
        product = block.act_fn(gate) * up
    return block.down_proj(product)


def liger_patches() -> ModuleType:
    """Liger's module that knows which kernels each family of models takes.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        return importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "model.kernels is 'liger', and the package liger-kernel is not installed. pip install -e '.[gpu]', or set "
            "it to torch."
        ) from error


def use_kernels(model: PreTrainedModel, kernels: Kernels) -> None:
    """Set the model's norms and gated MLPs to Liger's fused Triton kernels, for "liger".

    Its fused loss is no use here: it takes gradients in the forward pass (see `head`).

    Raises:
        ConfigError: the package is missing, or has nothing for the model.
    """
    if kernels != "liger":
        return
    liger = liger_patches()
    family, activation = model.config.model_type, getattr(model.config, "hidden_act", None)
    if family not in liger.MODEL_TYPE_TO_APPLY_LIGER_FN or activation not in ("silu", "swish"):
        raise ConfigError(
            f"model.kernels is 'liger', which has none for models of type {family!r} with activation {activation!r}. "
            "Set it to torch."
        )
    # it also replaces classes in the family's module, for models yet to be made; only this one is meant
    module = sys.modules[type(model).__module__]
    before = dict(vars(module))
    wanted = {"rms_norm": True, "swiglu": True}
    unwanted = dict.fromkeys(("rope", "geglu", "layer_norm", "cross_entropy", "fused_linear_cross_entropy"), False)
    liger._apply_liger_kernel_to_instance(model=model, **wanted, **unwanted)
    vars(module).update(before)
