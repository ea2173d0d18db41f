"""The learner over several ranks: weights, gradients and moments in shards (torch's fully_shard), each rank a share.

Every rank is given the whole update and does its share of the micro-batches. Their losses are divided by the counts of
the whole update, so gradients are added over the ranks, and what is learned is what one process would learn, but for
rounding. Weights come together layer by layer, so all ranks do the same number of passes; one that has no examples
left takes part with a loss of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample, passes
from reval_core.learning.layout import Layout
from reval_core.learning.learner import Learner
from reval_core.learning.objectives import Loss
from reval_core.learning.optimizers import emptied, state_of
from reval_core.learning.precision import is_bfloat16
from reval_core.learning.reference import Floats, scoring_mode, to_numpy
from reval_core.learning.scoring import OWN_FORWARD, PLAIN_HEAD_FAMILIES, Scores, has_plain_head, label_and_value
from reval_core.learning.shards import MODEL, STATE, names, read_into, write_shards


def shard(
    model: nn.Module, mesh: DeviceMesh, compute_dtype: torch.dtype | str, device: torch.device | None = None
) -> PreTrainedModel:
    """Spread the model's weights over the mesh, in place; each rank keeps the same share of every layer.

    With compute_dtype bfloat16 the shards are rounded before they come together and gradients are added in float32,
    as `precision.computing_in` has it in one process.

    Args:
        model: the same on every rank, or on "meta" and without values.
        mesh: one dimension.
        compute_dtype: "float32" for the weights' own precision, or "bfloat16".
        device: where a model on "meta" comes to be, a layer at a time; its weights and buffers are yet to be set.

    Raises:
        LearningError: the model's head is not known to be a plain one.
    """
    if not has_plain_head(model):
        raise LearningError(
            f"learning.ranks is above 1, but {type(model).__name__} cannot be spread over ranks; known are "
            f"{', '.join(sorted(PLAIN_HEAD_FAMILIES))}. Set learning.ranks: 1."
        )
    rounded = is_bfloat16(compute_dtype)
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if rounded else None,
        reduce_dtype=torch.float32 if rounded else None,
        cast_forward_inputs=False,  # what is not a weight stays as precise as in one process
    )
    for layer in _layers(model):
        if device is not None:
            layer.to_empty(device=device)
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    if device is not None:
        _rest_to_empty(model, device)
    fully_shard(model, mesh=mesh, mp_policy=precision, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # a sum, not a mean; and gloo knows no other
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    # the head's weight is used outside the body's own forward, so both are one forward pass to FSDP
    setattr(model, OWN_FORWARD, MethodType(_label_and_value, model))
    register_fsdp_forward_method(model, OWN_FORWARD)
    return model


class ShardedLearner(Learner):
    """A `Learner` on one rank of a group, all of which are asked for the same; its model is one that `shard` gave.

    `update` and `begin_round` take the whole of what is learned from and give the whole's report on every rank.
    """

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()

    def begin_round(self, fresh: Sequence[TrainingExample]) -> None:
        """As in one process."""
        super().begin_round(fresh)
        self._let_go()

    def write_state(self, folder: Path) -> None:
        """Write the optimizer's state as files of whole tensors, each file by one rank. All ranks are to call it."""
        state = state_of(self._optimizer, self.optimizer_config.use, self._parameters)
        write_shards(folder, STATE, {**self._counts(), **state})

    def read_state(self, folder: Path) -> None:
        """Take over a state that any number of ranks wrote, each rank its own share.

        Raises:
            LearningError: it is of another model or optimizer.
        """
        found = names(folder)
        self._optimizer = emptied(self.optimizer_config, self._parameters, found)
        counts = self._counts()
        state = {**counts, **state_of(self._optimizer, self.optimizer_config.use, self._parameters)}
        known = {name for name in found if name.startswith(("learner.", "adamw"))}
        if set(state) != known:
            raise LearningError(
                f"The optimizer state in {folder} is of another model or optimizer: it has {len(known)} tensors, here "
                f"are {len(state)} (for one {sorted(set(state) ^ known)[0]})."
            )
        read_into(folder, state)
        self.updates_done = int(counts["learner.updates_done"])
        self.skipped_in_a_row = int(counts["learner.skipped_in_a_row"])

    def write_weights(self, folder: Path) -> None:
        """Write the weights in Hugging Face layout, each file by one rank. All ranks are to call it."""
        write_shards(folder, MODEL, dict(self.model.named_parameters()))

    def _counts(self) -> dict[str, Tensor]:
        return {
            "learner.updates_done": torch.tensor(self.updates_done, dtype=torch.int64),
            "learner.skipped_in_a_row": torch.tensor(self.skipped_in_a_row, dtype=torch.int64),
        }

    def _scoring(self) -> AbstractContextManager[None]:
        # the shards are rounded on their way together
        return scoring_mode(self.model, "float32", packed=self.optimizer_config.packing)

    def _split(self, examples: Sequence[TrainingExample]) -> list[list[int]]:
        optimizer = self.optimizer_config
        split = passes(examples, optimizer.max_tokens_per_micro_batch, self._ranks, packed=optimizer.packing)
        return [of_ranks[self._rank] for of_ranks in split]

    def _chosen(self, examples: Sequence[TrainingExample], indices: Sequence[int]) -> list[TrainingExample]:
        """The micro-batch, or where it is empty the shortest example, which costs least."""
        return super()._chosen(examples, indices) or [min(examples, key=len)]

    def _pass(self, examples: Sequence[TrainingExample], indices: Sequence[int], *rest: Any) -> tuple[Loss, Scores]:
        if indices:
            return super()._pass(examples, indices, *rest)
        _, scores = self._score(self._chosen(examples, indices), gradient=True)
        (0.0 * (scores.logprob.sum() + scores.root_value.sum())).backward()
        nothing = scores.logprob.new_zeros(0)
        return Loss(nothing.sum().double(), nothing), Scores(nothing, nothing)

    def _constant(self, examples: Sequence[TrainingExample]) -> Tensor | None:
        constant = super()._constant(examples)
        self._let_go()
        return constant

    def _every_token(self, found: Mapping[int, Tensor], examples: Sequence[TrainingExample]) -> Mapping[int, Tensor]:
        lengths = [len(example.response_ids) for example in examples]
        like = next(iter(found.values()), torch.zeros(0, device=self._device))
        dtype = torch.float64 if self._is_double else torch.float32
        whole = torch.zeros(sum(lengths), dtype=dtype, device=like.device)
        parts = whole.split(lengths)
        for index, values in found.items():
            parts[index].copy_(values)
        return dict(enumerate(self._every(whole).split(lengths)))

    def _every(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)  # one rank has each value and the others 0, so the sum is exact
        return values

    def _in_order(self, parts: Sequence[Tensor], batches: Sequence[Sequence[int]], count: int) -> Floats:
        values = np.zeros(count)
        values[[index for indices in batches for index in indices]] = to_numpy(torch.cat(list(parts)))
        return self._every(torch.from_numpy(values)).numpy()

    def _losses(self, totals: Tensor) -> list[float]:
        """In the order of the micro-batches, so that their sum is the same on every rank."""
        every = torch.zeros(len(totals), self._ranks, dtype=torch.float64)
        every[:, self._rank] = totals.cpu()
        return self._every(every).flatten().tolist()

    def _norm(self, gradients: Sequence[Tensor]) -> Tensor:
        own = torch.nn.utils.get_total_norm([_local(gradient) for gradient in gradients], foreach=False)
        return self._every(own.double().square()).sqrt().to(own.dtype)

    def _clip(self, norm: Tensor) -> None:
        factor = (self.optimizer_config.clip_norm / (norm + 1e-6)).clamp(max=1.0)  # torch's own
        for parameter in self._parameters.values():
            if parameter.grad is not None:
                _local(parameter.grad).mul_(factor)

    def _let_go(self) -> None:
        """After passes without gradient, of what the model keeps together for the backward pass."""
        self.model.reshard()  # type: ignore[operator]

    @property
    def _is_double(self) -> bool:
        return next(self.model.parameters()).dtype == torch.float64


def _label_and_value(model: nn.Module, layout: Layout, temperature: float) -> tuple[Tensor, Tensor]:
    label_logit, value = label_and_value(model, layout, temperature)
    return label_logit.clone(), value  # FSDP hangs its backward pass on what is returned, which is to be no view


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's list of decoder layers."""
    depth = model.config.num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


def _rest_to_empty(model: PreTrainedModel, device: torch.device) -> None:
    """Bring to the device what is still on "meta"; what was one parameter in two places stays so."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False, remove_duplicate=False):
            if value.is_meta:
                if value not in made:
                    made[value] = nn.Parameter(torch.empty_like(value, device=device), value.requires_grad)
                setattr(module, name, made[value])
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=device)
