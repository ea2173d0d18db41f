"""Finds a policy by its id: in memory, in a folder, or by learning it again from stored trajectories.

This is what makes recovery, forks, reruns and a stage run alone one thing: whoever needs a policy asks for it by id,
and the nearest saved ancestor plus the updates in the store give it back without generating anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.environment import BITS_DEPEND_ON
from reval_core.errors import LearningError
from reval_core.identity import LEARNING_VERSION, digest, short
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner, UpdateReport
from reval_core.learning.objectives import objective_for
from reval_core.learning.reference import reference_scores
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import (
    Manifest,
    load_model,
    load_optimizer,
    load_saved,
    save_policy,
    weights_checksum,
)
from reval_core.store import Store, lineage, trajectories
from reval_core.store.lineage import LearningStep, PolicyRecord

log = logging.getLogger(__name__)

Pair = tuple[float, float]


class Policies:
    """The policies of one worker process: one that learns, a few frozen ones, and the way back to all others.

    Args:
        store: where lineages and trajectories stand.
        root: paths in the store are relative to it; policies are saved under ``root/policies``.
        base: the run's base model.
        device: torch device of every model.
        compute_dtype: "float32" or "bfloat16"; weights are kept in float32.
        pad_id: token put into padding.
        versions: what this process runs under; bits of weights learned again are held against it.
        gradient_checkpointing: recompute activations in the backward pass.
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
        gradient_checkpointing: bool = False,
    ) -> None:
        self._store = store
        self._root = root
        self._base = base
        self._device = device
        self._dtype = compute_dtype
        self._pad_id = pad_id
        self._versions = versions
        self._checkpointing = gradient_checkpointing
        self._learner: Learner | None = None
        self._learner_policy: str | None = None
        self._learner_settings: Mapping[str, Any] | None = None
        self._frozen: dict[str, nn.Module] = {}
        self._realised: dict[str, str] = {}

    # -- policies to look at ------------------------------------------------------------------------------------

    def model(self, policy_id: str) -> nn.Module:
        """The policy's model, to sample from or to score with. It must not be changed by the caller."""
        if policy_id == self._learner_policy and self._learner is not None:
            return self._learner.model
        if policy_id not in self._frozen:
            loaded = self._load_frozen(policy_id)
            if loaded is None:
                self._go_to(policy_id)
                assert self._learner is not None
                return self._learner.model
            self._frozen[policy_id] = loaded
        return self._frozen[policy_id]

    def checksum(self, policy_id: str) -> str:
        """Checksum of the policy's weights as this process has them, else as the store recorded them first."""
        if policy_id in self._realised:
            return self._realised[policy_id]
        with self._store.read() as connection:
            return lineage.policy(connection, policy_id).weights_checksum

    def keep_frozen(self, *policy_ids: str | None) -> None:
        """Let go of frozen policies other than these."""
        self._frozen = {key: value for key, value in self._frozen.items() if key in policy_ids}

    def _load_frozen(self, policy_id: str) -> nn.Module | None:
        folder = self._folder(policy_id)
        if folder is None:
            return None
        if policy_id == self._base.policy_id:
            model = load_model(folder, device=self._device)
        else:
            model = load_saved(folder, policy_id, device=self._device)
        return model.requires_grad_(False)

    def _folder(self, policy_id: str) -> Path | None:
        if policy_id == self._base.policy_id:
            return self._base.folder
        with self._store.read() as connection:
            record = lineage.policy(connection, policy_id)
        if record.folder is None or not (self._root / record.folder).is_dir():
            return None
        return self._root / record.folder

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
            examples = [_example(tokens[name], name, reward=0.0, weight=1.0, score=None) for name in missing]
            logprob, root_value = reference_scores(
                self.model(reference_policy_id),
                examples,
                max_tokens=max_tokens,
                temperature=temperature,
                compute_dtype=compute_dtype,
                pad_id=self._pad_id,
            )
            known |= {name: (float(a), float(b)) for name, a, b in zip(missing, logprob, root_value, strict=True)}
        return known

    # -- learning ---------------------------------------------------------------------------------------------------

    def learn(self, step: LearningStep) -> tuple[PolicyRecord, list[UpdateReport]]:
        """Make a policy of its parent by the step's updates. The learner's weights are the new policy afterwards.

        Learning and learning again are this one function: a step says everything that they depend on.
        """
        examples = self._examples(step)  # first: scoring may need to find the reference
        learner = self._learner_at(step.parent_policy_id, step.settings)
        reports: list[UpdateReport] = []
        self._learner_policy = None  # the weights are nobody's while they change
        try:
            learner.begin_round(list({e.trajectory_id: e for update in examples for e in update}.values()))
            reports += [learner.update(update) for update in examples]
        except BaseException:
            self._learner = None
            raise
        self._learner_policy = step.policy_id
        self._realised[step.policy_id] = weights_checksum(learner.model)
        record = PolicyRecord(
            policy_id=step.policy_id,
            kind="learned",
            parent_policy_id=step.parent_policy_id,
            reference_policy_id=step.reference_policy_id,
            settings=step.settings,
            updates_done=step.updates_before + len(step.updates),
            tokenizer_id=self._base.tokenizer_id,
            weights_checksum=self._realised[step.policy_id],
            folder=None,
        )
        return record, reports

    def save(self, policy_id: str, *, run_id: str | None, iteration: int | None, with_optimizer: bool) -> Path:
        """Save a policy as a folder under the root and record where; one that is saved already is left alone."""
        folder = self._root / "policies" / policy_id
        with self._store.read() as connection:
            record = lineage.policy(connection, policy_id)
        saved = record.folder is not None and folder.is_dir()
        if saved and (not with_optimizer or load_optimizer(folder) is not None):
            return folder
        if with_optimizer:
            self._go_to(policy_id)
        model = self.model(policy_id)
        optimizer = self._learner.state_tensors() if with_optimizer and self._learner is not None else None
        manifest = Manifest(
            policy_id=policy_id,
            weights_checksum=weights_checksum(model),
            tokenizer_id=record.tokenizer_id,
            parent_policy_id=record.parent_policy_id,
            reference_policy_id=record.reference_policy_id,
            updates_done=record.updates_done,
            run_id=run_id,
            iteration=iteration,
        )
        save_policy(folder, model, self._base.folder, manifest, optimizer)
        with self._store.write() as connection:
            lineage.set_folder(connection, policy_id, str(folder.relative_to(self._root)))
        return folder

    def _examples(self, step: LearningStep) -> list[list[TrainingExample]]:
        objective, optimizer = _configs(step.settings)
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
                compute_dtype=step.settings["compute_dtype"],
            )
        return [
            [
                _example(
                    tokens[draw.trajectory_id],
                    draw.group_id,
                    reward=draw.reward,
                    weight=draw.weight,
                    score=scores.get(draw.trajectory_id),
                )
                for draw in update.draws
            ]
            for update in step.updates
        ]

    def _learner_at(self, policy_id: str, settings: Mapping[str, Any]) -> Learner:
        """The learner with the policy's weights and optimizer state, under these settings."""
        self._go_to(policy_id)
        learner = self._learner
        assert learner is not None
        if self._learner_settings != settings:
            learner = self._new_learner(learner.model, settings, learner)
            self._learner, self._learner_settings = learner, settings
        return learner

    def _go_to(self, policy_id: str) -> None:
        """Bring the learner to a policy, from the nearest ancestor that is in memory or saved with its optimizer."""
        path: list[PolicyRecord] = []
        here = policy_id
        while here != self._learner_policy and not self._restore(here):
            with self._store.read() as connection:
                record = lineage.policy(connection, here)
            if record.parent_policy_id is None:
                raise LearningError(
                    f"{policy_id} descends from the base policy {here}, which is not this run's base model "
                    f"({self._base.policy_id}). Set model.path to the base it was learned from."
                )
            path.append(record)
            here = record.parent_policy_id
        if path:
            log.info("learning %d policies again from stored trajectories, up to %s", len(path), short(policy_id))
        for record in reversed(path):
            with self._store.read() as connection:
                step = lineage.learning_step(connection, record)
            again, _ = self.learn(step)
            self._learner_policy = None  # weights that differ are nobody's, also when they are asked for again
            self._compare(record, again.weights_checksum)
            # a record of another LEARNING_VERSION keeps its own id
            self._learner_policy = record.policy_id
            self._realised[record.policy_id] = again.weights_checksum

    def _restore(self, policy_id: str) -> bool:
        """Load the learner from a folder with optimizer state, or from the base model; False when there is neither."""
        if policy_id == self._base.policy_id:
            self._learner = self._new_learner(load_model(self._base.folder, device=self._device), None, None)
            self._learner_policy, self._learner_settings = policy_id, None
            return True
        folder = self._folder(policy_id)
        state = load_optimizer(folder) if folder else None
        if folder is None or state is None:
            return False
        with self._store.read() as connection:
            settings = lineage.policy(connection, policy_id).settings
        learner = self._new_learner(load_saved(folder, policy_id, device=self._device), settings, None)
        learner.load_state_tensors(state)
        self._learner, self._learner_policy, self._learner_settings = learner, policy_id, settings
        return True

    def _new_learner(self, model: nn.Module, settings: Mapping[str, Any] | None, state_of: Learner | None) -> Learner:
        objective, optimizer = _configs(settings) if settings is not None else (ObjectiveConfig(), OptimizerConfig())
        dtype = settings["compute_dtype"] if settings is not None else self._dtype
        if self._checkpointing:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        learner = Learner(model, objective, optimizer, pad_id=self._pad_id, compute_dtype=dtype)
        if state_of is not None:
            learner.load_state_tensors(state_of.state_tensors())
        return learner

    def _compare(self, record: PolicyRecord, checksum: str) -> None:
        """Hold weights that were learned again against the recorded ones."""
        if checksum == record.weights_checksum:
            return
        before = self._versions_of(record)
        same = all(before.get(key) == self._versions.get(key) for key in BITS_DEPEND_ON)
        if same and self._device == "cpu":
            raise LearningError(
                f"{record.policy_id} was learned again under the same versions and threads, but its weights differ "
                "from the recorded ones. The stored trajectories or the base model's files were changed; restore them."
            )
        drift = self._drift(record.policy_id)
        log.warning(
            "%s learned again under other versions or devices gave other weights (mean |log-prob drift| %s nats); "
            "going on, stored trajectories stay valid off-policy data",
            short(record.policy_id),
            "unknown" if drift is None else f"{drift:.3g}",
        )
        with self._store.write() as connection:
            lineage.add_realisation(connection, record.policy_id, checksum, self._versions, drift)

    def _versions_of(self, record: PolicyRecord) -> dict[str, Any]:
        with self._store.read() as connection:
            return lineage.versions_of(connection, record.policy_id)

    def _drift(self, policy_id: str, most: int = 64) -> float | None:
        """Mean |log pi - behaviour log-prob| per response over a stored batch of the policy, in nats."""
        with self._store.read() as connection:
            behaviour = lineage.behaviour_logprobs(connection, policy_id, most)
            tokens = trajectories.tokens(connection, list(behaviour)) if behaviour else {}
        if not behaviour or self._learner is None:
            return None
        examples = [_example(tokens[name], name, reward=0.0, weight=1.0, score=None) for name in behaviour]
        logprob, _ = reference_scores(
            self._learner.model,
            examples,
            max_tokens=self._learner.optimizer_config.max_tokens_per_micro_batch,
            temperature=self._learner.objective_config.policy_temperature,
            compute_dtype=self._dtype,
            pad_id=self._pad_id,
        )
        return float(np.abs(np.asarray(logprob) - np.array(list(behaviour.values()))).mean())


def learning_settings(objective: ObjectiveConfig, optimizer: OptimizerConfig, compute_dtype: str) -> dict[str, Any]:
    """What a lineage records of the settings: everything that an update depends on."""
    return {
        # how many updates a round has and when the reference changes is told by the steps themselves
        "objective": objective.model_dump(mode="json", exclude={"updates", "reference_reset_every"}),
        "objective_version": objective_for(objective).version,
        "optimizer": optimizer.model_dump(mode="json"),
        "compute_dtype": compute_dtype,
    }


def _configs(settings: Mapping[str, Any]) -> tuple[ObjectiveConfig, OptimizerConfig]:
    return ObjectiveConfig(**settings["objective"]), OptimizerConfig(**settings["optimizer"])


def _example(
    tokens: trajectories.Tokens, group_id: str, *, reward: float, weight: float, score: Pair | None
) -> TrainingExample:
    return TrainingExample(
        trajectory_id=tokens.trajectory_id,
        group_id=group_id,
        prompt_ids=tokens.prompt_ids,
        response_ids=tokens.response_ids,
        reward=reward,
        weight=weight,
        ref_logprob=score[0] if score else None,
        ref_root_value=score[1] if score else None,
    )
