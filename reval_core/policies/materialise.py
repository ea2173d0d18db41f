"""Finds a policy by its id: in memory, in a folder, or by learning it again from stored trajectories.

This is what makes recovery, forks, reruns and a stage run alone one thing: whoever needs a policy asks for it by id,
and the nearest saved ancestor plus the updates in the store give it back without generating anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from reval_core.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from reval_core.environment import BITS_DEPEND_ON
from reval_core.errors import LearningError
from reval_core.identity import LEARNING_VERSION, digest, short
from reval_core.learning.activations import Checkpointing, Kernels
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import UpdateReport
from reval_core.learning.precision import on_device
from reval_core.learning.reference import reference_scores
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import Manifest, has_optimizer, save_policy, weights_checksum
from reval_core.policies.learners import AnyLearner, Learners, LocalLearners, RankedLearners
from reval_core.policies.ranks import Ranks
from reval_core.policies.resident import Frozen, Resident
from reval_core.policies.steps import Pair, configs_of, example_of, learning_settings
from reval_core.policies.weights import AdapterWeights, Weights, WholeWeights
from reval_core.store import Store, lineage, trajectories
from reval_core.store.lineage import LearningStep, PolicyRecord

log = logging.getLogger(__name__)


class Policies:
    """The policies of one worker process: one that learns, a few frozen ones, and the way back to all others.

    While it learns, the reference is the only frozen one that it keeps.

    Args:
        store: where lineages and trajectories stand.
        root: paths in the store are relative to it; policies are saved under ``root/policies``.
        base: the run's base model.
        device: torch device of every model.
        compute_dtype: "float32" or "bfloat16"; weights are kept in float32.
        pad_id: token put into padding.
        versions: what this process runs under; bits of weights learned again are held against it.
        gradient_checkpointing: what is recomputed in the backward pass.
        kernels: which kernels every model runs its small operations with.
        reference: "device", or "host" for references that come to the device only to score.
        lora: every policy is an adapter over the base; None: policies are whole.
        ranks: processes that learn in this one's place; None: this one learns.
        max_skipped_in_a_row: updates in a row that are not finite and end learning; no policy's id depends on it.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        base: BasePolicy,
        *,
        device: str,
        compute_dtype: str,
        pad_id: int,
        versions: Mapping[str, Any],
        gradient_checkpointing: Checkpointing = False,
        kernels: Kernels = "torch",
        reference: Literal["device", "host"] = "device",
        lora: LoraConfig | None = None,
        ranks: Ranks | None = None,
        max_skipped_in_a_row: int = OptimizerConfig().max_skipped_in_a_row,
        on_relearned: Callable[[int, int], None] = lambda done, total: None,
        on_update: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._store = store
        self._root = root
        self._base = base
        self._device = device
        self._dtype = compute_dtype
        self._pad_id = pad_id
        self._versions = versions
        self._lora = lora
        made: dict[str, Any] = {"pad_id": pad_id, "kernels": kernels, "recomputed": gradient_checkpointing}
        self._learners: Learners = LocalLearners(**made) if ranks is None else RankedLearners(ranks, **made)
        held: dict[str, Any] = {"device": device, "compute_dtype": compute_dtype, "kernels": kernels}
        self._weights: Weights = (
            WholeWeights(base, reference=reference, **held) if lora is None else AdapterWeights(base, lora, **held)
        )
        self._max_skipped = max_skipped_in_a_row
        self._on_relearned, self._on_update = on_relearned, on_update
        self._resident: Resident | None = None  # also while the learner's weights belong to no policy
        self._frozen: dict[str, Frozen] = {}

    # -- policies to look at ------------------------------------------------------------------------------------

    def model(self, policy_id: str) -> nn.Module:
        """The policy's model, to sample from or score with until something is learned. It must not be changed."""
        return self._found(policy_id).model

    def as_policy(self, policy_id: str) -> nn.Module:
        """The same in the form that learns: where policies are adapters, of the base with one that changes nothing."""
        return self._weights.as_policy(self.model(policy_id))

    def checksum(self, policy_id: str) -> str:
        """Checksum of the policy's weights as they are in memory, else as the store recorded them first."""
        held = self._held(policy_id)
        return held.checksum if held is not None else self._record(policy_id).weights_checksum

    def keep_frozen(self, *policy_ids: str | None) -> None:
        """Let go of frozen policies other than these."""
        self._frozen = {key: value for key, value in self._frozen.items() if key in policy_ids}

    def _held(self, policy_id: str) -> Resident | Frozen | None:
        if self._resident is not None and self._resident.policy_id == policy_id:
            return self._resident
        return self._frozen.get(policy_id)

    def _found(self, policy_id: str) -> Resident | Frozen:
        """The policy in memory with its own weights, brought there by the shortest way."""
        held = self._held(policy_id)
        if held is not None and not (isinstance(held, Frozen) and held.only_scores_in):
            return held
        folder = self._folder(policy_id)
        if folder is None:
            return self._go_to(policy_id)
        self._frozen[policy_id] = self._load(policy_id, folder)
        return self._frozen[policy_id]

    def _load(self, policy_id: str, folder: Path) -> Frozen:
        if policy_id == self._base.policy_id:
            return Frozen(self._weights.base(), self._record(policy_id).weights_checksum)
        model, manifest = self._weights.saved(folder, policy_id)
        return Frozen(model, manifest.weights_checksum)

    def _folder(self, policy_id: str) -> Path | None:
        if policy_id == self._base.policy_id:
            return self._base.folder
        record = self._record(policy_id)
        if record.folder is None or not (self._root / record.folder).is_dir():
            return None
        return self._root / record.folder

    def _record(self, policy_id: str) -> PolicyRecord:
        with self._store.read() as connection:
            return lineage.policy(connection, policy_id)

    # -- reference scores -----------------------------------------------------------------------------------------

    def scoring_id(self, temperature: float, compute_dtype: str | None = None) -> str:
        """What two scalars of one trajectory under one reference depend on beside the two."""
        return digest("sco", [LEARNING_VERSION, compute_dtype or self._dtype, temperature])

    def scores(
        self,
        trajectory_ids: Sequence[str],
        reference_policy_id: str,
        *,
        temperature: float,
        max_tokens: int,
        packed: bool = False,
        compute_dtype: str | None = None,
    ) -> dict[str, Pair]:
        """(log pi_ref, V_ref(s1)) in nats of each trajectory: from the store, computed where they are missing.

        Computed ones are not written here; the stage *score* commits them with its own row. `compute_dtype` is this
        process's own unless a step that was learned under another one is learned again.
        """
        compute_dtype = compute_dtype or self._dtype
        scoring_id = self.scoring_id(temperature, compute_dtype)
        with self._store.read() as connection:
            known = trajectories.reference_scores(connection, trajectory_ids, reference_policy_id, scoring_id)
            missing = [name for name in trajectory_ids if name not in known]
            tokens = trajectories.tokens(connection, missing) if missing else {}
        if missing:
            examples = [example_of(tokens[name], name) for name in missing]
            with on_device(self._scoring_model(reference_policy_id, compute_dtype), self._device) as model:
                logprob, root_value = reference_scores(
                    model,
                    examples,
                    max_tokens=max_tokens,
                    packed=packed,
                    temperature=temperature,
                    compute_dtype=compute_dtype,
                    pad_id=self._pad_id,
                )
            known |= {name: (float(a), float(b)) for name, a, b in zip(missing, logprob, root_value, strict=True)}
        return known

    def _scoring_model(self, policy_id: str, compute_dtype: str) -> nn.Module:
        """The policy to score with, which may be one that can do nothing else."""
        held = self._held(policy_id)
        if isinstance(held, Frozen) and held.only_scores_in == compute_dtype:
            return held.model
        return self.model(policy_id)

    def _keep_reference(self, policy_id: str | None) -> None:
        """While it learns, keep no frozen policy but the reference, as small as it computes and where it is to be."""
        self.keep_frozen(policy_id)
        self._frozen = {key: self._weights.beside_learner(frozen) for key, frozen in self._frozen.items()}

    # -- learning ---------------------------------------------------------------------------------------------------

    def learn(self, step: LearningStep) -> tuple[PolicyRecord, list[UpdateReport]]:
        """Make a policy of its parent by the step's updates. The learner's weights are the new policy afterwards.

        Learning and learning again are this one function: a step says everything that they depend on.
        """
        examples = self._examples(step)  # first: scoring may need to find the reference
        learner = self._learner_at(step)
        self._resident = None  # the weights are nobody's while they change
        learner.begin_round(list({e.trajectory_id: e for update in examples for e in update}.values()))
        reports = []
        for done, update in enumerate(examples, start=1):
            reports.append(learner.update(update))
            self._on_update(done, len(examples))
        checksum = weights_checksum(learner.model)
        self._resident = Resident(step.policy_id, learner, step.settings, checksum)
        record = PolicyRecord(
            policy_id=step.policy_id,
            kind="learned",
            parent_policy_id=step.parent_policy_id,
            reference_policy_id=step.reference_policy_id,
            settings=step.settings,
            updates_done=step.updates_before + len(step.updates),
            tokenizer_id=self._base.tokenizer_id,
            weights_checksum=checksum,
            folder=None,
        )
        return record, reports

    def save(self, policy_id: str, *, run_id: str | None, iteration: int | None, with_optimizer: bool) -> Path:
        """Save a policy as a folder under the root and record where; one that is saved already is left alone."""
        folder = self._root / "policies" / policy_id
        record = self._record(policy_id)
        saved = record.folder is not None and folder.is_dir()
        if saved and (not with_optimizer or has_optimizer(folder)):
            return folder
        resident = self._go_to(policy_id, record.reference_policy_id) if with_optimizer else None
        held = resident or self._found(policy_id)
        manifest = Manifest(
            policy_id=policy_id,
            weights_checksum=held.checksum,
            tokenizer_id=record.tokenizer_id,
            parent_policy_id=record.parent_policy_id,
            reference_policy_id=record.reference_policy_id,
            updates_done=record.updates_done,
            run_id=run_id,
            iteration=iteration,
            base_policy_id=self._weights.base_policy_id,
        )
        optimizer = self._learners.to_save(resident.learner) if resident else None
        save_policy(folder, held.model, self._base.folder, manifest, optimizer)
        with self._store.write() as connection:
            lineage.set_folder(connection, policy_id, str(folder.relative_to(self._root)))
        return folder

    def _examples(self, step: LearningStep) -> list[list[TrainingExample]]:
        objective, optimizer = configs_of(step.settings)
        names = lineage.trajectory_ids(step.updates)
        with self._store.read() as connection:
            tokens = trajectories.tokens(connection, names)
        scores: dict[str, Pair] = {}
        if step.reference_policy_id is not None:
            scores = self.scores(
                names,
                step.reference_policy_id,
                temperature=objective.policy_temperature,
                max_tokens=optimizer.max_tokens_per_micro_batch,
                packed=optimizer.packing,
                compute_dtype=step.settings["compute_dtype"],
            )
        return [
            [
                example_of(tokens[d.trajectory_id], d.group_id, d.reward, d.weight, scores.get(d.trajectory_id))
                for d in update.draws
            ]
            for update in step.updates
        ]

    def _learner_at(self, step: LearningStep) -> AnyLearner:
        """The learner with the weights and optimizer state of the step's parent, under the step's settings."""
        resident = self._go_to(step.parent_policy_id, step.reference_policy_id)
        self._keep_reference(step.reference_policy_id)
        if resident.settings == step.settings:
            return resident.learner
        model, state = resident.model, self._learners.state(resident.learner)
        self._resident = None
        del resident  # with its moments, before the new learner has its own
        return self._new_learner(model, step.settings, state)

    def _go_to(self, policy_id: str, reference: str | None = None) -> Resident:
        """Bring the learner to a policy, from the nearest ancestor that is in memory or saved with its optimizer.

        Frozen models make room for it on the way, but for the reference's.
        """
        path: list[PolicyRecord] = []
        here = policy_id
        while (resident := self._start_from(here, reference)) is None:
            record = self._record(here)
            if record.parent_policy_id is None:
                raise LearningError(
                    f"{policy_id} descends from the base policy {here}, which is not this run's base model "
                    f"({self._base.policy_id}). Set model.path to the base it was learned from."
                )
            path.append(record)
            here = record.parent_policy_id
        if path:
            log.info("learning %d policies again from stored trajectories, up to %s", len(path), short(policy_id))
        for done, record in enumerate(reversed(path), start=1):
            resident = self._learn_again(record)
            self._on_relearned(done, len(path))
        return resident

    def _start_from(self, policy_id: str, reference: str | None) -> Resident | None:
        """The learner at a policy that it holds, or that is the base or saved with its optimizer state; else None."""
        if self._resident is not None and self._resident.policy_id == policy_id:
            return self._resident
        folder = self._folder(policy_id)
        is_base = policy_id == self._base.policy_id
        if folder is None or not (is_base or has_optimizer(folder)):
            return None
        self._resident = None  # before another model and its optimizer state come into memory
        handed_over = None if policy_id == reference else self._frozen.get(policy_id)
        if handed_over is not None and handed_over.only_scores_in:
            handed_over = None
        self.keep_frozen(reference)
        loaded = handed_over or self._load(policy_id, folder)
        if is_base:  # its first step says under which settings it learns
            settings: Mapping[str, Any] = learning_settings(
                ObjectiveConfig(), OptimizerConfig(), self._dtype, self._lora
            )
            state = None
        else:
            settings, state = self._record(policy_id).settings, self._learners.saved(folder)
        learner = self._new_learner(self._weights.learnable(loaded.model), settings, state)
        self._resident = Resident(policy_id, learner, settings, loaded.checksum)
        return self._resident

    def _learn_again(self, record: PolicyRecord) -> Resident:
        """The next policy on the way to one that is not in memory."""
        with self._store.read() as connection:
            step = lineage.learning_step(connection, record)
        self.learn(step)
        again, self._resident = self._resident, None  # weights that differ are nobody's, also when asked for again
        assert again is not None
        self._compare(record, again)
        # a record of another LEARNING_VERSION keeps its own id
        self._resident = replace(again, policy_id=record.policy_id)
        return self._resident

    def _new_learner(self, model: nn.Module, settings: Mapping[str, Any], state: Any) -> AnyLearner:
        self._weights.check(settings)
        objective, optimizer = configs_of(settings)
        optimizer = optimizer.model_copy(update={"max_skipped_in_a_row": self._max_skipped})
        return self._learners.begin(model, objective, optimizer, settings["compute_dtype"], state)

    def _compare(self, record: PolicyRecord, again: Resident) -> None:
        """Hold weights that were learned again against the recorded ones."""
        if again.checksum == record.weights_checksum:
            return
        with self._store.read() as connection:
            before = lineage.versions_of(connection, record.policy_id)
        same = all(before.get(key) == self._versions.get(key) for key in BITS_DEPEND_ON)
        if same and self._device == "cpu":
            raise LearningError(
                f"{record.policy_id} was learned again under the same versions and threads, but its weights differ "
                "from the recorded ones. The stored trajectories or the base model's files were changed; restore them."
            )
        drift = self._drift(record.policy_id, again.learner)
        log.warning(
            "%s learned again under other versions or devices gave other weights (mean |log-prob drift| %s nats); "
            "going on, stored trajectories stay valid off-policy data",
            short(record.policy_id),
            "unknown" if drift is None else f"{drift:.3g}",
        )
        with self._store.write() as connection:
            lineage.add_realisation(connection, record.policy_id, again.checksum, self._versions, drift)

    def _drift(self, policy_id: str, learner: AnyLearner, most: int = 64) -> float | None:
        """Mean |log pi - behaviour log-prob| per response over a stored batch of the policy, in nats."""
        with self._store.read() as connection:
            behaviour = lineage.behaviour_logprobs(connection, policy_id, most)
            tokens = trajectories.tokens(connection, list(behaviour)) if behaviour else {}
        if not behaviour:
            return None
        examples = [example_of(tokens[name], name) for name in behaviour]
        logprob, _ = reference_scores(
            learner.model,
            examples,
            max_tokens=learner.optimizer_config.max_tokens_per_micro_batch,
            packed=learner.optimizer_config.packing,
            temperature=learner.objective_config.policy_temperature,
            compute_dtype=self._dtype,
            pad_id=self._pad_id,
        )
        return float(np.abs(np.asarray(logprob) - np.array(list(behaviour.values()))).mean())
