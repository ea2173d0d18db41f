"""What a forward pass keeps for its backward pass, and with which kernels a model's small operations run.

Both are set once on a model, the policy's and its reference's alike, before anything is scored.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from typing import Literal

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from reval_core.errors import ConfigError

Checkpointing = bool | Literal["mlp"]
Kernels = Literal["torch", "liger"]


def checkpoint_activations(model: PreTrainedModel, what: Checkpointing) -> None:
    """Recompute in the backward pass what is named rather than keep it: True whole layers, "mlp" their MLPs.

    An MLP's inner activations are the better part of a layer's; they cost two of its three products again. Whole layers
    keep one hidden state each and cost a forward pass.

    Raises:
        ConfigError: the model's layers have no `mlp`.
    """
    if what is True:
        model.gradient_checkpointing_enable()
    elif what == "mlp":
        blocks = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "mlp"]
        if not blocks:
            raise ConfigError(
                f"model.gradient_checkpointing is 'mlp', and the layers of {type(model).__name__} have no module of "
                "that name. Set it to true or false."
            )
        for block in blocks:
            _recompute(block)


def _recompute(block: nn.Module) -> None:
    forward = block.forward
    if not (isinstance(forward, partial) and forward.func is checkpoint):
        block.forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)


def use_kernels(model: PreTrainedModel, kernels: Kernels) -> None:
    """Set the model's norms and gated MLPs to Liger's fused Triton kernels, for "liger".

    Its fused loss is no use here: it takes gradients in the forward pass (see `head`).

    Raises:
        ConfigError: the package is missing, or knows nothing of the model.
    """
    if kernels != "liger":
        return
    try:
        liger = importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "model.kernels is 'liger', and the package liger-kernel is not installed. pip install -e '.[gpu]', or set "
            "it to torch."
        ) from error
    family = model.config.model_type
    if family not in liger.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(f"model.kernels is 'liger', which has none for models of type {family!r}. Set it to torch.")
    # it also replaces classes in the family's module, for models yet to be made; only this one is meant
    module = sys.modules[type(model).__module__]
    before = dict(vars(module))
    wanted = {"rms_norm": True, "swiglu": True, "geglu": True}
    unwanted = dict.fromkeys(("rope", "layer_norm", "cross_entropy", "fused_linear_cross_entropy"), False)
    liger._apply_liger_kernel_to_instance(model=model, **wanted, **unwanted)
    vars(module).update(before)
