"""Low-rank adapters over a base model that stays as it is: W x becomes W x + (alpha / rank) B A x, A and B are learned.

The base's weights are in memory once. A model with an adapter is a skeleton of its own whose frozen parameters are the
very tensors of the base, so the policy, its reference and others that are sampled from stand side by side, none of
them switched on or off. A reference that is the base is the base itself: exactly the policy without its adapter.
Products are never merged into the weights, which would round them in bfloat16: what samples is what learns.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reval_core.config import LoraConfig
from reval_core.errors import ConfigError, LearningError
from reval_core.identity import digest

NAME = "default"
"""Of the one adapter that a model has here; peft leaves it out of the names in a file."""
PREFIX = "base_model.model."
"""What peft puts before the names in a file."""


def peft() -> ModuleType:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise ConfigError("model.lora needs the package peft: pip install -e '.[lora]'.") from error


def adapted(
    base: PreTrainedModel, lora: LoraConfig, tensors: Mapping[str, Tensor] | None = None, *, frozen: bool = False
) -> PreTrainedModel:
    """A model with an adapter over the base, whose tensors it shares and does not change.

    Args:
        base: frozen, without an adapter.
        lora: settings.
        tensors: of the adapter, float32, under the names of `adapter_tensors`; by default a new one, which changes
            nothing: A is uniform within 1 / sqrt(inputs) as peft has it, from `lora.seed` and the layer's name, B is 0.
        frozen: the adapter is not to be learned either.

    Raises:
        ConfigError: peft is missing, or a target is not a linear layer that can have an adapter.
        LearningError: the tensors are of another adapter.
    """
    check_targets(base, lora)
    model = _sharing(base)
    peft().inject_adapter_in_model(_settings(lora), model, adapter_name=NAME, low_cpu_mem_usage=True)
    places = {_in_file(name): name for name, parameter in model.named_parameters() if parameter.is_meta}
    shapes = {name: model.get_parameter(place).shape for name, place in places.items()}
    values = _initial(shapes, lora.seed) if tensors is None else tensors
    if {name: value.shape for name, value in values.items()} != shapes:
        raise LearningError(
            f"The adapter has other tensors than model.lora makes over this base ({len(values)} against "
            f"{len(shapes)}, or other shapes). Set model.lora to what it was learned with."
        )
    device = next(base.parameters()).device
    for name, place in places.items():
        owner, _, leaf = place.rpartition(".")
        value = values[name].to(device, torch.float32, copy=True)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=not frozen))
    return model.eval()


def is_adapted(model: nn.Module) -> bool:
    """Whether the model has an adapter."""
    return bool(getattr(model, "peft_config", None))


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors under their names in peft's files."""
    marked = f".{NAME}."
    return {_in_file(name): value for name, value in model.named_parameters() if ".lora_" in name and marked in name}


def peft_config(model: nn.Module) -> Any:
    """peft's settings of the model's adapter."""
    return model.peft_config[NAME]  # type: ignore[index]


def learn_adapter(model: nn.Module) -> nn.Module:
    """The same model, whose adapter is to be learned from here on."""
    learned = {id(value) for value in adapter_tensors(model).values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in learned)
    return model


def check_targets(base: nn.Module, lora: LoraConfig) -> None:
    """Refuse targets that are not there or cannot have an adapter; the model may be a mere outline on "meta".

    Raises:
        ConfigError: says which, and what there is.
    """
    heads = {id(module) for module in (base.get_output_embeddings(), base.get_input_embeddings())}  # type: ignore[operator]
    named = [(name.rpartition(".")[2], module) for name, module in base.named_modules()]
    for target in lora.targets:
        found = [module for name, module in named if name == target]
        if any(id(module) in heads for module in found):
            raise ConfigError(
                f"model.lora.targets: {target!r} is the LM head or the embedding. The loss takes the head's weight by "
                "slices, without the adapter's product (reval_core/learning/head.py), so it has none. Leave it out."
            )
        if not found or not all(type(module) is nn.Linear for module in found):
            linear = sorted({name for name, module in named if type(module) is nn.Linear and id(module) not in heads})
            raise ConfigError(
                f"model.lora.targets: {type(base).__name__} has no linear layers {target!r}; it has "
                f"{', '.join(linear) or 'none but the LM head, so it can have no adapters'}."
            )


def adapter_numbers(base: nn.Module, lora: LoraConfig) -> int:
    """Numbers in an adapter over the base, which may be a mere outline on "meta"."""
    layers = [m for name, m in base.named_modules() if name.rpartition(".")[2] in lora.targets]
    return sum(lora.rank * (m.in_features + m.out_features) for m in layers if isinstance(m, nn.Linear))


def _settings(lora: LoraConfig) -> Any:
    return peft().LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _sharing(base: PreTrainedModel) -> PreTrainedModel:
    """A skeleton of its own around the base's tensors."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    return copy.deepcopy(base, shared)


def _initial(shapes: Mapping[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """The tensors of a new adapter; drawn on the CPU, so the same on every device and whatever was drawn before."""
    values: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        value = torch.zeros(shape)
        if ".lora_A." in name:
            source = torch.Generator().manual_seed(int(digest("lora", [seed, name])[-15:], 16))
            value.uniform_(-1, 1, generator=source).div_(shape[1] ** 0.5)
        values[name] = value
    return values


def _in_file(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.", ".")
