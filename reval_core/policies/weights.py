"""How the weights of a run's policies lie in memory and in folders: each policy whole, or adapters over one base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn

from reval_core.config import LoraConfig
from reval_core.errors import LearningError
from reval_core.learning.activations import Kernels, use_kernels
from reval_core.learning.adapters import adapted, is_adapted, learn_adapter
from reval_core.learning.precision import is_bfloat16, round_weights, to_host
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import Manifest, load_adapter, load_model, load_saved
from reval_core.policies.resident import Frozen


class Weights(Protocol):
    """What `Policies` asks of either."""

    base_policy_id: str | None
    """What saved policies stand over; None where they are whole."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse a policy that was learned in the other way; LearningError says which setting it takes."""
        ...

    def base(self) -> nn.Module:
        """The base policy's model, frozen."""
        ...

    def saved(self, folder: Path, policy_id: str) -> tuple[nn.Module, Manifest]:
        """A saved policy's model, frozen, and what its folder says of it."""
        ...

    def as_policy(self, model: nn.Module) -> nn.Module:
        """The same function in the form in which a policy computes it."""
        ...

    def learnable(self, model: nn.Module) -> nn.Module:
        """The same function with weights to learn; the model given is not to be used as a frozen one any more."""
        ...

    def beside_learner(self, frozen: Frozen) -> Frozen:
        """A reference as it is held while the learner learns."""
        ...


class WholeWeights:
    """Every policy has weights of its own.

    Args:
        base: the run's base model.
        device: torch device of every model.
        compute_dtype: "float32" or "bfloat16".
        kernels: which kernels every model runs its small operations with.
        reference: "device", or "host" for references that come to the device only to score.
    """

    base_policy_id: str | None = None

    def __init__(
        self,
        base: BasePolicy,
        *,
        device: str,
        compute_dtype: str,
        kernels: Kernels = "torch",
        reference: Literal["device", "host"] = "device",
    ) -> None:
        self._base, self._device, self._dtype, self._kernels = base, device, compute_dtype, kernels
        self._reference_on_host = reference == "host"

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse adapters."""
        if settings.get("lora") is not None:
            raise LearningError(f"The policy is an adapter, learned with model.lora {settings['lora']}. Set it so.")

    def base(self) -> nn.Module:
        """From its folder."""
        return self._frozen(load_model(self._base.folder, device=self._device))

    def saved(self, folder: Path, policy_id: str) -> tuple[nn.Module, Manifest]:
        """From its folder."""
        model, manifest = load_saved(folder, policy_id, device=self._device)
        return self._frozen(model), manifest

    def as_policy(self, model: nn.Module) -> nn.Module:
        """The model."""
        return model

    def learnable(self, model: nn.Module) -> nn.Module:
        """The model, all of it to be learned."""
        return model.requires_grad_(True)

    def beside_learner(self, frozen: Frozen) -> Frozen:
        """On a GPU as small as it computes and where it is to be."""
        if self._device == "cpu" or frozen.only_scores_in is not None:
            return frozen
        if not (is_bfloat16(self._dtype) or self._reference_on_host):
            return frozen
        if is_bfloat16(self._dtype):
            round_weights(frozen.model)
        if self._reference_on_host:
            to_host(frozen.model)
        return replace(frozen, only_scores_in=self._dtype)

    def _frozen(self, model: nn.Module) -> nn.Module:
        use_kernels(model, self._kernels)
        return model.requires_grad_(False)


class AdapterWeights:
    """Every policy but the base is an adapter over the base's weights, which are held once, as they compute.

    A reference costs an adapter, or nothing where it is the base. Arguments as `WholeWeights`.
    """

    def __init__(
        self, base: BasePolicy, lora: LoraConfig, *, device: str, compute_dtype: str, kernels: Kernels = "torch"
    ) -> None:
        self.base_policy_id: str | None = base.policy_id
        self._folder, self._base_id, self._lora = base.folder, base.policy_id, lora
        self._device, self._dtype, self._kernels = device, compute_dtype, kernels
        self._base: Any = None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse whole weights, other adapters and another precision."""
        mine = self._lora.model_dump(mode="json", exclude={"dropout"})
        if settings.get("lora") != mine:
            raise LearningError(f"The policy was learned with model.lora {settings.get('lora')}, here it is {mine}.")
        if settings["compute_dtype"] != self._dtype:
            raise LearningError(
                f"The policy was learned with model.dtype {settings['compute_dtype']}; here the base's weights are "
                f"held in {self._dtype}, which is another function."
            )

    def base(self) -> nn.Module:
        """Loaded once and rounded to what it computes in: it is never learned."""
        if self._base is None:
            model: Any = load_model(self._folder)
            if is_bfloat16(self._dtype):
                round_weights(model)
            use_kernels(model, self._kernels)
            self._base = model.to(self._device).requires_grad_(False)
        return self._base

    def saved(self, folder: Path, policy_id: str) -> tuple[nn.Module, Manifest]:
        """The adapter in the folder over the base."""
        return load_adapter(folder, policy_id, self.base(), self._base_id)

    def as_policy(self, model: nn.Module) -> nn.Module:
        """The base with an adapter that changes nothing yet; any other policy has its own."""
        return model if is_adapted(model) else adapted(model, self._lora)

    def learnable(self, model: nn.Module) -> nn.Module:
        """The model with its adapter, or a new one, to be learned."""
        return learn_adapter(self.as_policy(model))

    def beside_learner(self, frozen: Frozen) -> Frozen:
        """As it is."""
        return frozen
