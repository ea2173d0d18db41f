"""A store with a base policy and trajectories made by hand, to learn policies from without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from reval_core.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from reval_core.learning.learner import UpdateReport
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import base_policy_id, load_model, tokenizer_id, weights_checksum
from reval_core.policies.materialise import Policies
from reval_core.policies.steps import learning_settings
from reval_core.process import ProcessIdentity
from reval_core.store import Store, lineage, runs, trajectories
from reval_core.store.lineage import UPDATE_ROW_SCHEMA, Draw, LearningStep, PlannedUpdate, PolicyRecord, UpdateRecord
from reval_core.store.runs import RunRecord
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord

VERSIONS: dict[str, Any] = {"torch": torch.__version__, "threads": 1, "LEARNING_VERSION": 1}
OBJECTIVE = ObjectiveConfig(beta=0.5)
OPTIMIZER = OptimizerConfig(lr=1e-2, warmup_updates=3, max_tokens_per_micro_batch=64)


class House:
    """A root with a store, a base policy, one run and a batch of eight trajectories: two problems of four samples."""

    lora: LoraConfig | None = None
    optimizer = OPTIMIZER

    def __init__(self, root: Path, base_folder: Path) -> None:
        self.root = root
        self.store = Store(root / "reval.duckdb")
        self.store.prepare()
        self.base = BasePolicy(base_folder, base_policy_id(base_folder), tokenizer_id(base_folder))
        record = PolicyRecord(
            policy_id=self.base.policy_id,
            kind="base",
            parent_policy_id=None,
            reference_policy_id=None,
            settings={},
            updates_done=0,
            tokenizer_id=self.base.tokenizer_id,
            weights_checksum=weights_checksum(load_model(base_folder)),
            folder=str(base_folder),
        )
        run = RunRecord("run-1", "run", {}, "cfg_1", 0, self.base.policy_id, "ver_1", VERSIONS)
        with self.store.write() as connection:
            runs.add(connection, run)
            self.attempt = runs.start_attempt(
                connection,
                "run-1",
                ProcessIdentity.mine(),
                git_commit=None,
                versions=VERSIONS,
                device="cpu",
                flow_run_id=None,
            )
            lineage.add_policy(connection, record, run_id="run-1", attempt=self.attempt)
        self.names, self.groups = self.sample(self.base.policy_id, round=0)

    def at(self, root: Path) -> House:
        """The same house under another root."""
        self.root, self.store = root, Store(root / "reval.duckdb")
        return self

    def sample(self, policy_id: str, round: int, logprob: float = -5.0) -> tuple[list[str], list[str]]:
        """Store a hand-made batch of the policy; returns its trajectory ids and their groups."""
        problems = ("prb_a", "prb_b")
        batch = BatchRecord(
            purpose="training",
            policy_id=policy_id,
            weights_checksum="sha256_0",
            tokenizer_id=self.base.tokenizer_id,
            round=round,
            generation=0,
            engine="by hand",
            sampling={"seed": 0},
            prompt_ids=("prm_a", "prm_b"),
            problem_ids=problems,
            samples_per_prompt=4,
        )
        rng = np.random.default_rng(round)
        rows = [
            {
                "trajectory_id": trajectories.trajectory_id(batch.batch_id, problem, index),
                "problem_id": problem,
                "sample_index": index,
                "prompt_id": prompt,
                "prompt_ids": [3, 12, 4] if problem == "prb_a" else [5, 13, 6, 12, 7, 14, 15],
                "prompt_text": problem,
                "response_ids": [*rng.integers(2, 19, 1 + 2 * index).tolist(), 1],
                "completion": "...",
                "finish_reason": "stop",
                "behaviour_logprob": logprob,
                "seed": index,
            }
            for problem, prompt in zip(problems, batch.prompt_ids, strict=True)
            for index in range(4)
        ]
        part = pa.Table.from_pylist(rows, schema=PART_SCHEMA)
        self.store.append_batch(batch, part, run_id="run-1", attempt=1)
        return [row["trajectory_id"] for row in rows], [f"{batch.batch_id}/{row['problem_id']}" for row in rows]

    def policies(
        self, versions: dict[str, Any] = VERSIONS, base: BasePolicy | None = None, **settings: Any
    ) -> Policies:
        """A new process's view of the store."""
        given = {"device": "cpu", "compute_dtype": "float32", "lora": self.lora, **settings}
        return Policies(self.store, self.root, base or self.base, pad_id=0, versions=versions, **given)

    def draws(self, *indices: int) -> tuple[Draw, ...]:
        return tuple(Draw(self.names[i], float(i % 3 == 0), 1.0, self.groups[i]) for i in indices)

    def step(self, parent: str, reference: str | None, before: int, **objective: Any) -> LearningStep:
        """Two updates: the whole batch, then half of it."""
        settings = OBJECTIVE.model_copy(update=objective)
        return LearningStep(
            parent_policy_id=parent,
            reference_policy_id=reference,
            settings=learning_settings(settings, self.optimizer, "float32", self.lora),
            updates_before=before,
            updates=(
                PlannedUpdate("fresh", self.draws(*range(8))),
                PlannedUpdate("replay", self.draws(6, 1, 4, 3, 0, 7)),
            ),
        )

    def learn(self, policies: Policies, step: LearningStep) -> PolicyRecord:
        """Learn a step and record it, as the stage does."""
        record, reports = policies.learn(step)
        with self.store.write() as connection:
            lineage.add_policy(connection, record, run_id="run-1", attempt=self.attempt)
            for index, (update, report) in enumerate(zip(step.updates, reports, strict=True)):
                self._record(connection, step.policy_id, index, update, report)
        return record

    def _record(self, connection: Any, policy_id: str, index: int, update: PlannedUpdate, report: UpdateReport) -> None:
        rows = [
            {"position": place, "trajectory_id": draw.trajectory_id, "reward": draw.reward, "weight": draw.weight}
            for place, draw in enumerate(update.draws)
        ]
        made = UpdateRecord(
            index=index,
            kind=update.kind,
            loss=report.loss,
            grad_norm=report.grad_norm,
            lr=report.lr,
            skipped=report.skipped,
            tokens=report.n_tokens,
            rows=pa.Table.from_pylist(rows, schema=UPDATE_ROW_SCHEMA),
        )
        used = lineage.uses(connection, policy_id, lineage.trajectory_ids([update]))
        lineage.add_updates(connection, policy_id, [made], used)

    def chain(self, policies: Policies, count: int = 3, **objective: Any) -> list[PolicyRecord]:
        """Policies learned one after another from the base, which stays their reference."""
        records: list[PolicyRecord] = []
        parent = self.base.policy_id
        for index in range(count):
            records.append(self.learn(policies, self.step(parent, self.base.policy_id, 2 * index, **objective)))
            parent = records[-1].policy_id
        return records

    def spoil(self, name: str) -> None:
        """Change a stored response."""
        with self.store.write() as connection:
            changed = "UPDATE store.payloads SET response_ids = [9, 9, 1]::INTEGER[] WHERE trajectory_id = $name"
            connection.execute(changed, {"name": name})
