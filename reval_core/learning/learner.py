"""The learner: gradients of an update in micro-batches, AdamW on float32 master weights, and the optimizer's state.

Each micro-batch's loss is divided by the counts of the whole update, so gradients add up to the same sum however the
update is split. A step with a non-finite loss or gradient is skipped; several in a row stop the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample, group_indices, micro_batches
from reval_core.learning.layout import Layout, send
from reval_core.learning.objectives import Batch, Loss, Objective, Update, objective_for
from reval_core.learning.optimizers import make_optimizer, restored, state_tensors
from reval_core.learning.precision import is_bfloat16
from reval_core.learning.reference import (
    Floats,
    column,
    in_order,
    require,
    score_examples,
    scoring_mode,
    set_learning_mode,
)
from reval_core.learning.scoring import Scores


@dataclass(frozen=True, eq=False)
class Accumulated:
    """What an update's gradient pass found, per example in the order given; NaN where the objective has none."""

    loss: float
    residual: Floats
    """[N] nats"""
    log_ratio: Floats
    """[N] log pi - log pi_ref of the response, nats"""
    root_gap: Floats
    """[N] V(s_1) - V_ref(s_1), nats"""


@dataclass(frozen=True, eq=False)
class UpdateReport:
    """What one update did."""

    loss: float
    grad_norm: float
    """Global norm before clipping."""
    lr: float
    skipped: bool
    """Loss or gradient was not finite; the weights did not change."""
    n_tokens: int
    """Response tokens."""
    n_examples: int
    residual: Floats
    """[N] nats, before the step; NaN where the objective has none."""
    log_ratio: Floats
    """[N] log pi - log pi_ref, nats, before the step; NaN where no reference score was given."""
    root_gap: Floats
    """[N] V(s_1) - V_ref(s_1), nats, before the step; NaN where no reference score was given."""


class Learner:
    """Updates a model in place.

    Master weights are float32: a model that learns in half precision is converted in place, since an update of 1e-6
    would vanish in 8 significant bits. With compute_dtype bfloat16 rounded copies of them compute. Beside adapters in
    float32 a frozen base stays as it is. The model stays in evaluation mode, so that the policy is scored as its
    reference was; gradient checkpointing of whole layers, which works in training mode only, is refused together with
    dropout.

    Args:
        model: causal language model, changed in place.
        objective, optimizer: settings.
        updates_done: updates before this one, for the warm-up.
        pad_id: token put into padding; it never reaches the model.
        compute_dtype: "float32" or "bfloat16".
    """

    def __init__(
        self,
        model: nn.Module,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        *,
        updates_done: int = 0,
        pad_id: int = 0,
        compute_dtype: torch.dtype | str = "float32",
    ) -> None:
        if any(value.requires_grad and value.dtype in (torch.bfloat16, torch.float16) for value in model.parameters()):
            model.float()
        self.model = model
        self.objective: Objective = objective_for(objective)
        self.objective_config = objective
        self.optimizer_config = optimizer
        self.updates_done = updates_done
        self.skipped_in_a_row = 0
        self._pad_id = pad_id
        self.compute_dtype = compute_dtype
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._device = next(model.parameters()).device
        self._optimizer = make_optimizer(optimizer, self._parameters)
        self._old_logprob: dict[str, Tensor] = {}
        is_bfloat16(compute_dtype)  # a wrong dtype is an error now, not at the first update
        set_learning_mode(model)

    def begin_round(self, fresh: Sequence[TrainingExample]) -> None:
        """Take the policy's log-probs per token at the start of a round, where the objective needs them."""
        self._old_logprob = {}
        if "old_logprob" not in self.objective.needs:
            return
        set_learning_mode(self.model)
        found: dict[int, Tensor] = {}
        with self._scoring():
            for indices in self._split(fresh):
                chosen = self._chosen(fresh, indices)
                layout, scores = self._score(chosen, gradient=False)
                assert scores.token_logprob is not None
                lengths = [len(example.response_ids) for example in chosen]
                values = scores.token_logprob.flatten().index_select(0, layout.cells).split(lengths)
                found |= dict(zip(indices, values, strict=False))
        whole = self._every_token(found, fresh)
        self._old_logprob = {example.trajectory_id: whole[index] for index, example in enumerate(fresh)}

    def update(self, examples: Sequence[TrainingExample]) -> UpdateReport:
        """One optimizer step on the examples.

        Raises:
            LearningError: an example lacks a reference score that the objective needs, or too many updates in a row
                were not finite.
        """
        self.zero_grad()
        found = self.accumulate(examples)
        grad_norm, lr, skipped = self.step(found.loss)
        return UpdateReport(
            loss=found.loss,
            grad_norm=grad_norm,
            lr=lr,
            skipped=skipped,
            n_tokens=_count_tokens(examples),
            n_examples=len(examples),
            residual=found.residual,
            log_ratio=found.log_ratio,
            root_gap=found.root_gap,
        )

    def zero_grad(self) -> None:
        """Drop the gradients and their memory."""
        self._optimizer.zero_grad(set_to_none=True)

    def accumulate(
        self,
        examples: Sequence[TrainingExample],
        *,
        count: int | None = None,
        token_count: int | None = None,
    ) -> Accumulated:
        """Add the gradient of the examples' share of an update to the parameters' `.grad`.

        Args:
            examples: an update, or one rank's part of it; groups whole where the objective needs them.
            count, token_count: trajectories and response tokens of the whole update, by default of the examples. With
                them the gradients of several ranks' parts are to be added, not averaged.
        """
        if not examples:
            raise LearningError("An update was asked for without any trajectory. Is the batch or the window empty?")
        self._check_reference(examples)
        set_learning_mode(self.model)  # a rollout engine may have changed it
        count = len(examples) if count is None else count
        token_count = _count_tokens(examples) if token_count is None else token_count
        batches = self._split(examples)
        with self._scoring():
            constant = self._constant(examples)
            # nothing here waits for the device
            found = [self._pass(examples, indices, constant, count, token_count) for indices in batches]
        return self._accumulated(examples, batches, found)

    def step(self, loss: float) -> tuple[float, float, bool]:
        """Clip the accumulated gradient and step AdamW, or skip if loss or gradient is not finite.

        Returns:
            Global gradient norm before clipping, learning rate, whether the step was skipped.

        Raises:
            LearningError: `max_skipped_in_a_row` steps in a row were skipped.
        """
        gradients = [value.grad for value in self._parameters.values() if value.grad is not None]
        norm = self._norm(gradients)
        lr = self.learning_rate()
        skipped = not (math.isfinite(loss) and bool(norm.isfinite()))
        if not skipped:
            self._clip(norm)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        self.zero_grad()
        self.updates_done += 1
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= self.optimizer_config.max_skipped_in_a_row:
            raise LearningError(
                f"Update {self.updates_done}: loss {loss:g} and gradient norm {norm.item():g}; "
                f"{self.skipped_in_a_row} updates in a row were not finite. Lower optimizer.lr, raise objective.beta, "
                "or compute in float32 (model.dtype); then go on from the last checkpoint."
            )
        return norm.item(), lr, skipped

    def learning_rate(self) -> float:
        """Rate of the next update: linear from lr / warmup_updates up to lr, then constant."""
        warmup = self.optimizer_config.warmup_updates
        return self.optimizer_config.lr * min(1.0, (self.updates_done + 1) / warmup if warmup else 1.0)

    def state_tensors(self) -> dict[str, Tensor]:
        """Copies on the CPU of all that the next update depends on beside the weights, ready for safetensors."""
        state = {
            "learner.updates_done": torch.tensor(self.updates_done, dtype=torch.int64),
            "learner.skipped_in_a_row": torch.tensor(self.skipped_in_a_row, dtype=torch.int64),
        }
        return state | state_tensors(self._optimizer, self.optimizer_config.use, self._parameters)

    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave; the next update is then the same bit for bit.

        Raises:
            LearningError: tensors are missing, unknown, or of another model's shape; nothing is taken over.
        """
        left = dict(state)
        try:
            updates_done = int(left.pop("learner.updates_done"))
            skipped_in_a_row = int(left.pop("learner.skipped_in_a_row"))
        except KeyError as error:
            raise LearningError(f"The optimizer state lacks {error}; the checkpoint is not complete.") from error
        self._optimizer = restored(self.optimizer_config, self._parameters, left)
        self.updates_done, self.skipped_in_a_row = updates_done, skipped_in_a_row

    def _accumulated(
        self, examples: Sequence[TrainingExample], batches: list[list[int]], found: list[tuple[Loss, Scores]]
    ) -> Accumulated:
        losses, scores = zip(*found, strict=True)
        residual, logprob, root_value = (
            self._in_order(values, batches, len(examples))
            for values in (
                [part.residual for part in losses],
                [score.logprob for score in scores],
                [score.root_value for score in scores],
            )
        )
        return Accumulated(
            loss=sum(self._losses(torch.stack([part.total for part in losses]))),
            residual=residual,
            log_ratio=logprob - column(examples, "ref_logprob"),
            root_gap=root_value - column(examples, "ref_root_value"),
        )

    # -- what is another in a learner whose model is spread over ranks (`sharding`) --------------------------------

    def _chosen(self, examples: Sequence[TrainingExample], indices: Sequence[int]) -> list[TrainingExample]:
        """The examples of a micro-batch."""
        return [examples[index] for index in indices]

    def _every_token(self, found: Mapping[int, Tensor], examples: Sequence[TrainingExample]) -> Mapping[int, Tensor]:
        """Values [H] per response token of all examples, by index, from those that were computed here."""
        return found

    def _every(self, values: Tensor) -> Tensor:
        """[N] values of all examples, from those computed here; 0 elsewhere."""
        return values

    def _in_order(self, parts: Sequence[Tensor], batches: Sequence[Sequence[int]], count: int) -> Floats:
        """[count] values of the micro-batches in the order of the examples."""
        return in_order(parts, batches)

    def _losses(self, totals: Tensor) -> list[float]:
        """Every micro-batch's share of the loss."""
        return totals.tolist()

    def _norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Norm of the whole gradient."""
        return torch.nn.utils.get_total_norm(gradients, foreach=False)

    def _clip(self, norm: Tensor) -> None:
        torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self.optimizer_config.clip_norm, norm)

    def _pass(
        self,
        examples: Sequence[TrainingExample],
        indices: Sequence[int],
        constant: Tensor | None,
        count: int,
        token_count: int,
    ) -> tuple[Loss, Scores]:
        """Add one micro-batch's gradient."""
        chosen = self._chosen(examples, indices)
        layout, scores = self._score(chosen, gradient=True)
        chosen_constant = None if constant is None else constant[self._send(np.asarray(indices))]
        batch = self._batch(chosen, layout, scores, chosen_constant, count, token_count)
        part = self.objective.loss(batch, self.objective_config)
        part.total.backward()
        return _without_graph(part, scores)

    def _scoring(self) -> AbstractContextManager[None]:
        return scoring_mode(self.model, self.compute_dtype, packed=self.optimizer_config.packing)

    def _split(self, examples: Sequence[TrainingExample]) -> list[list[int]]:
        optimizer = self.optimizer_config
        return micro_batches(examples, optimizer.max_tokens_per_micro_batch, packed=optimizer.packing)

    def _score(self, examples: Sequence[TrainingExample], *, gradient: bool) -> tuple[Layout, Scores]:
        return score_examples(
            self.model,
            examples,
            gradient=gradient,
            packed=self.optimizer_config.packing,
            token_logprobs="old_logprob" in self.objective.needs,
            temperature=self.objective_config.policy_temperature,
            pad_id=self._pad_id,
        )

    def _constant(self, examples: Sequence[TrainingExample]) -> Tensor | None:
        """What couples the update's trajectories, before the gradient pass."""
        if self.objective.constant is None:
            return None
        needs = self.objective.needs
        logprob = None
        if "update_logprob" in needs:
            logprob = torch.zeros(len(examples), dtype=torch.float64, device=self._device)
            for indices in self._split(examples):
                _, scores = self._score(self._chosen(examples, indices), gradient=False)
                logprob[self._send(np.asarray(indices, np.int64))] = scores.logprob[: len(indices)].double()
            logprob = self._every(logprob)
        update = Update(
            reward=self._tensor(examples, "reward"),
            group=torch.from_numpy(group_indices(examples)).to(self._device) if "group" in needs else None,
            ref_logprob=self._tensor(examples, "ref_logprob") if "ref_logprob" in needs else None,
            logprob=logprob,
        )
        return self.objective.constant(update, self.objective_config)

    def _batch(
        self,
        examples: Sequence[TrainingExample],
        layout: Layout,
        scores: Scores,
        constant: Tensor | None,
        count: int,
        token_count: int,
    ) -> Batch:
        needs = self.objective.needs
        return Batch(
            logprob=scores.logprob,
            root_value=scores.root_value,
            reward=self._tensor(examples, "reward"),
            weight=self._tensor(examples, "weight"),
            response_mask=layout.response_mask,
            count=count,
            token_count=token_count,
            ref_logprob=self._tensor(examples, "ref_logprob") if "ref_logprob" in needs else None,
            ref_root_value=self._tensor(examples, "ref_root_value") if "ref_root_value" in needs else None,
            constant=constant,
            token_logprob=scores.token_logprob,
            old_token_logprob=self._old(examples, layout) if "old_logprob" in needs else None,
        )

    def _old(self, examples: Sequence[TrainingExample], layout: Layout) -> Tensor:
        missing = [example.trajectory_id for example in examples if example.trajectory_id not in self._old_logprob]
        if missing:
            raise LearningError(
                f"Objective {self.objective.name!r}: trajectory {missing[0]} has no log-probs from the round's start. "
                "Call begin_round with the batch that is learned from."
            )
        flat = torch.cat([self._old_logprob[example.trajectory_id] for example in examples])
        mask = layout.response_mask
        return flat.new_zeros(mask.numel()).index_copy(0, layout.cells, flat).view(mask.shape)

    def _tensor(self, examples: Sequence[TrainingExample], name: str) -> Tensor:
        """[N] float64: the scalars are few, and rounding stored ones would move the residual."""
        return self._send(column(examples, name))

    def _send(self, values: np.ndarray) -> Tensor:
        return send(torch.from_numpy(values), self._device)

    def _check_reference(self, examples: Sequence[TrainingExample]) -> None:
        for name in ("ref_logprob", "ref_root_value"):
            if name in self.objective.needs:
                require(examples, name, f"objective {self.objective.name!r}")


def _without_graph(part: Loss, scores: Scores) -> tuple[Loss, Scores]:
    residual = torch.full_like(scores.logprob, torch.nan) if part.residual is None else part.residual
    return Loss(part.total.detach(), residual.detach()), Scores(scores.logprob.detach(), scores.root_value.detach())


def _count_tokens(examples: Sequence[TrainingExample]) -> int:
    return sum(len(example.response_ids) for example in examples)
