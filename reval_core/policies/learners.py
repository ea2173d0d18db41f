"""What learns a worker's policies: its own process, or several ranks that it asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.activations import Checkpointing, Kernels, checkpoint_activations
from reval_core.learning.batch import TrainingExample
from reval_core.learning.example_file import write_examples
from reval_core.learning.learner import Learner, UpdateReport
from reval_core.learning.objectives import objective_for
from reval_core.learning.shards import MODEL, each_file, write_shards
from reval_core.policies.folder import load_optimizer, state_folder
from reval_core.policies.rank import BUFFERS
from reval_core.policies.ranks import Ranks


class AnyLearner(Protocol):
    """What `Policies` asks of a learner; see `Learner`."""

    objective_config: ObjectiveConfig
    optimizer_config: OptimizerConfig

    @property
    def model(self) -> nn.Module:
        """The whole model, as it was learned so far."""
        ...

    def begin_round(self, fresh: Sequence[TrainingExample]) -> None:
        """What the objective needs from the start of a round."""
        ...

    def update(self, examples: Sequence[TrainingExample]) -> UpdateReport:
        """One optimizer step."""
        ...


class Learners(Protocol):
    """Makes learners. The state of an optimizer is tensors in one process, and a folder of them for ranks."""

    def begin(
        self, model: nn.Module, objective: ObjectiveConfig, optimizer: OptimizerConfig, dtype: str, state: Any
    ) -> AnyLearner:
        """A learner of the model, with the state that `saved` or `state` gave, or None."""
        ...

    def saved(self, folder: Path) -> Any:
        """The state that was saved in a policy's folder."""
        ...

    def state(self, learner: Any) -> Any:
        """A learner's state, for the next one."""
        ...

    def to_save(self, learner: Any) -> Mapping[str, Tensor] | Callable[[Path], None]:
        """A learner's state for `save_policy`."""
        ...


class LocalLearners:
    """This process learns.

    Args:
        pad_id: token put into padding.
        kernels: which kernels the models were set to.
        recomputed: what is recomputed in the backward pass.
    """

    def __init__(self, *, pad_id: int, kernels: Kernels, recomputed: Checkpointing) -> None:
        self._pad_id, self._kernels, self._recomputed = pad_id, kernels, recomputed

    def begin(
        self,
        model: Any,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        dtype: str,
        state: Mapping[str, Tensor] | None,
    ) -> Learner:
        """On the model itself."""
        checkpoint_activations(model, self._recomputed, self._kernels)
        learner = Learner(model, objective, optimizer, pad_id=self._pad_id, compute_dtype=dtype)
        if state is not None:
            learner.load_state_tensors(state)
        return learner

    def saved(self, folder: Path) -> Mapping[str, Tensor] | None:
        """Read now."""
        return load_optimizer(folder)

    def state(self, learner: Learner) -> Mapping[str, Tensor]:
        """Copies on the CPU."""
        return learner.state_tensors()

    def to_save(self, learner: Learner) -> Mapping[str, Tensor]:
        """The same."""
        return learner.state_tensors()


class RankedLearners:
    """Ranks learn. Arguments as `LocalLearners`."""

    def __init__(self, ranks: Ranks, *, pad_id: int, kernels: Kernels, recomputed: Checkpointing) -> None:
        self._ranks = ranks
        self._settings = {"pad_id": pad_id, "kernels": kernels, "recomputed": recomputed}

    def begin(
        self, model: nn.Module, objective: ObjectiveConfig, optimizer: OptimizerConfig, dtype: str, state: Path | None
    ) -> RankedLearner:
        """On copies of the model in shards; the ranks begin when they are first needed."""
        return RankedLearner(
            self._ranks, model, objective, optimizer, state, {**self._settings, "compute_dtype": dtype}
        )

    def saved(self, folder: Path) -> Path | None:
        """Where it lies."""
        return state_folder(folder)

    def state(self, learner: RankedLearner) -> Path | None:
        """Where it lies, written now if the ranks have begun."""
        return learner.state()

    def to_save(self, learner: RankedLearner) -> Callable[[Path], None]:
        """The ranks write it."""
        return learner.write_state


class RankedLearner:
    """A learner whose work is done by ranks. The model in this process is brought up to date when it is looked at.

    Args:
        ranks: who is asked.
        model: whole, the policy's function until the first update.
        objective, optimizer: settings.
        state: folder of the optimizer's state, or None.
        settings: what else the ranks are told.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: nn.Module,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        state: Path | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.objective_config, self.optimizer_config = objective, optimizer
        self._ranks, self._model, self._state, self._settings = ranks, model.requires_grad_(False), state, settings
        self._device = next(model.parameters()).device
        self._begun: int | None = None
        self._is_behind = False

    @property
    def model(self) -> nn.Module:
        """The whole model, in this process."""
        if self._is_behind:
            folder = self._ranks.empty("weights")
            self._ask("write_weights", folder=str(folder))
            parameters = dict(self._model.named_parameters())
            for part in each_file(folder, MODEL):
                for name, value in part.items():
                    parameters[name].data = value.to(self._device)
            shutil.rmtree(folder)
            self._is_behind = False
        return self._model

    def begin_round(self, fresh: Sequence[TrainingExample]) -> None:
        """As `Learner.begin_round`."""
        if "old_logprob" in objective_for(self.objective_config).needs:
            if self._begun is None:
                self._begin()
            self._ask_about("begin_round", fresh)

    def update(self, examples: Sequence[TrainingExample]) -> UpdateReport:
        """As `Learner.update`.

        Raises:
            LearningError: as there, or a rank has died.
        """
        if self._begun is None:
            self._begin()
        self._let_go()
        found = self._ask_about("update", examples)
        arrays = {name: np.array(found[name], np.float64) for name in ("residual", "log_ratio", "root_gap")}
        return UpdateReport(**found | arrays)

    def write_state(self, folder: Path) -> None:
        """Have the ranks write the optimizer's state, each its part, into a folder that is yet to be."""
        written = self._ranks.empty("state")
        self._ask("write_state", folder=str(written))
        shutil.move(written, folder)

    def state(self) -> Path | None:
        """Folder of the optimizer's state as it is now; None before the first update."""
        if self._begun is None:
            return self._state
        folder = self._ranks.empty("state")
        self._ask("write_state", folder=str(folder))
        return folder

    def _let_go(self) -> None:
        """The weights here are old ones; the first rank may need their place on the device."""
        if not self._is_behind:
            for parameter in self._model.parameters():
                parameter.data = parameter.data.new_empty(0)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        self._is_behind = True

    def _ask_about(self, what: str, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        path = self._ranks.empty("update") / "examples.safetensors"
        write_examples(path, examples)
        return self._ask(what, examples=str(path))

    def _ask(self, what: str, **given: Any) -> dict[str, Any]:
        if self._begun is None:
            self._begin()
        if self._begun != self._ranks.started:
            raise LearningError(f"The ranks were asked for {what!r}, but those that held the weights are gone.")
        return self._ranks.ask(what, **given)

    def _begin(self) -> None:
        """Give the ranks what this process has: whole files, of which each reads its share."""
        self._ranks.start()
        folder = self._ranks.empty("begin")
        write_shards(folder, MODEL, dict(self._model.named_parameters()))
        buffers = {name: value.to("cpu", copy=True).contiguous() for name, value in self._model.named_buffers()}
        save_file(buffers, folder / BUFFERS)
        self._model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
        state = None if self._state is None else self._ranks.seen(self._state)
        self._ranks.ask(
            "begin",
            folder=str(folder),
            state=None if state is None else str(state),
            objective=self.objective_config.model_dump(mode="json"),
            optimizer=self.optimizer_config.model_dump(mode="json"),
            **self._settings,
        )
        self._begun = self._ranks.started
        shutil.rmtree(folder)
        if state is not None and state.is_relative_to(self._ranks.folder):
            shutil.rmtree(state)
