"""A run that is being worked on: what its stages share in this process.

`Run` holds the open doors (store, policies, engine, grader), the run's committed history and its problems. `Here` is a
place in it: the run and an iteration. Everything that a stage's result depends on comes in through the stage's
inputs; the run says how and where to compute it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb

from reval_core.config import Config
from reval_core.errors import ProblemError
from reval_core.home import Home
from reval_core.learning.objectives import Objective, objective_for
from reval_core.policies.base import BasePolicy
from reval_core.policies.materialise import Policies
from reval_core.problems import Problem, Prompt, PromptRenderer
from reval_core.problems.overlap import Overlap
from reval_core.problems.schedule import epoch_order
from reval_core.process import ProcessIdentity
from reval_core.redaction import without_secrets
from reval_core.rollouts import RolloutEngine, SamplingSettings
from reval_core.store import Store, runs, schedule, stages
from reval_core.store.lineage import LearningStep
from reval_core.store.runs import RunRecord
from reval_core.store.stages import Lease
from reval_core.verification import Grader
from tasks.aside import Aside
from tasks.commit import Commit
from tasks.leases import give_up
from tasks.progress import Progress
from tasks.watched import Watch

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One attempt at a run, in this process."""

    record: RunRecord
    attempt: int
    config: Config
    home: Home
    store: Store
    process: ProcessIdentity
    base: BasePolicy
    tokenizer: Any
    renderer: PromptRenderer
    problems: dict[str, Problem]
    """Training problems by id, with the gold answers that count now."""
    weights: Mapping[str, float]
    """How often each problem comes in an epoch."""
    policies: Policies
    engine: RolloutEngine
    grader: Grader
    evaluation_graders: Mapping[str, Grader]
    """By benchmark."""
    progress: Progress
    aside: Aside | None = None
    """The process that evaluates during training; None: this one does."""
    watch: Watch | None = None
    """The line to what ends this process when a stage is stuck; None: nobody does."""
    shown_at: float = -math.inf
    """When its page was last brought up to date, by the monotonic clock."""
    published_at: float = -math.inf
    """When the snapshot was last renewed, by the same clock."""
    calibrated: str | None = None
    """The reference for which this attempt has passed the self-test."""
    pad_id: int = 0
    """Token put into padding; it never reaches a model."""
    flow_run_id: str | None = None
    history: dict[tuple[int, str, str], dict[str, Any]] = field(default_factory=dict)
    """(iteration, stage, slot) to output of what is committed along the run's chain."""
    executed: list[str] = field(default_factory=list)
    """``stage@iteration`` of the stages whose body ran in this attempt."""
    finished: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What rounds measured that were asked for before, by iteration; see `tasks.finished`."""
    benchmarks: dict[str, list[Problem]] = field(default_factory=dict)
    """Problems of the configured benchmarks, by name."""
    overlap: list[Overlap] = field(default_factory=list)
    """What the training problems have of them."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.record.run_id

    @cached_property
    def objective(self) -> Objective:
        """What is minimised."""
        return objective_for(self.config.objective)

    @cached_property
    def sampling(self) -> SamplingSettings:
        """How training responses are drawn."""
        rollouts = self.config.rollouts
        return SamplingSettings(
            max_new_tokens=rollouts.max_new_tokens,
            temperature=rollouts.temperature,
            top_p=rollouts.top_p,
            top_k=rollouts.top_k,
            stop_ids=self.renderer.stop_ids,
            token_budget=rollouts.token_budget,
            deadline_s=rollouts.deadline_s,
        )

    @property
    def scoring_id(self) -> str:
        """What reference scalars depend on beside trajectory and reference."""
        return self.policies.scoring_id(self.config.objective.policy_temperature)

    @property
    def base_folder(self) -> str:
        """Folder of the base model, relative to the root where it lies under it."""
        folder, root = self.base.folder.resolve(), self.home.root.resolve()
        return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)

    def write(self, commit: Commit[Any]) -> None:
        """Write the rows of a part of a stage, ahead of the stage's own row; doing it again changes nothing."""
        with self.store.write() as connection:
            commit.write(connection)

    def rounds(self) -> Iterator[Here]:
        """The iterations that are left, in order."""
        first = self.iterations_done()
        self.progress.start_rounds(self.config.run.iterations, first)
        for iteration in range(first, self.config.run.iterations):
            yield Here(self, iteration)
            self.progress.end_round(iteration)

    def iterations_done(self) -> int:
        """Iterations whose policy is committed, without a gap."""
        return stages.rounds_done(self.history)

    def policy_after(self, iteration: int) -> str:
        """Id of the policy that an iteration gave; -1 gives the base policy."""
        if iteration < 0:
            return self.record.base_policy_id
        return str(self.history[(iteration, "learn", "")]["policy_id"])

    def reference_during(self, iteration: int) -> str | None:
        """Id of the reference that an iteration learns under; None when the objective has none."""
        if not self.objective.needs_reference:
            return None
        if Here(self, iteration).reset_due:
            return self.policy_after(iteration - 1)
        before = self.history[(iteration - 1, "learn", "")]["reference_policy_id"] if iteration > 0 else None
        # a fork of a run whose objective had no reference begins with the base policy, as a run does
        return self.record.base_policy_id if before is None else str(before)

    def remember(self, slot: tuple[int, str, str], output: dict[str, Any], *, executed: bool) -> None:
        """Keep the history in memory in step with the store."""
        self.history[slot] = output
        if executed:
            self.executed.append(f"{slot[1]}@{slot[0]}")

    def give_up(self, lease: Lease) -> None:
        """End the lease of a stage that failed, so that nobody waits for it."""
        give_up(self.store, lease)

    def event(self, kind: str, message: str, iteration: int | None = None) -> None:
        """Record something worth knowing later, and say it."""
        message = without_secrets(message)
        log.warning("%s: %s", kind, message)
        with self.store.write() as connection:
            runs.add_event(connection, self.run_id, self.attempt, iteration, kind, message)


@dataclass(frozen=True)
class Here:
    """An iteration of a run."""

    run: Run
    iteration: int
    planned: dict[tuple[str, str | None], LearningStep] = field(default_factory=dict, compare=False, repr=False)
    """(policy, reference) to what the iteration learns, so that name and work of the stage are planned once."""

    @cached_property
    def problem_ids(self) -> list[str]:
        """The problems that this iteration draws, planned when they are first asked for."""
        run, count = self.run, self.run.config.rollouts.prompts_per_iteration
        with run.store.write() as connection:
            planned = schedule.planned_round(connection, run.run_id, self.iteration)
            if planned is not None:
                return planned
            first, reach, epoch = schedule.schedule_state(connection, run.run_id, self.iteration)
            since = schedule.since(connection, run.run_id)
            came = {name for name, first_round in since.items() if first_round == self.iteration > 0}
            pool = [(name, weight) for name, weight in run.weights.items() if since.get(name, 0) <= self.iteration]
            rest = schedule.scheduled(connection, run.run_id, first, reach)
            if came or (self.begins_fork and not run.problems.keys() >= set(rest)):
                first = reach  # the epoch that was under way ends here
            if reach < first + count:
                came |= self._not_drawn_yet(connection, since)
            while reach < first + count:
                order = epoch_order(sorted(pool), run.config.run.seed, epoch)
                order.sort(key=lambda name: name not in came)  # what is new comes first
                schedule.plan_epoch(connection, run.run_id, self.iteration, epoch, reach, order)
                reach, epoch, came = reach + len(order), epoch + 1, set()
            return schedule.plan_round(connection, run.run_id, self.iteration, first, count)

    def _not_drawn_yet(self, connection: duckdb.DuckDBPyConnection, since: Mapping[str, int]) -> set[str]:
        """Problems that came in while the run was under way and that no round has drawn."""
        late = {name for name, first_round in since.items() if 0 < first_round <= self.iteration}
        return late - schedule.drawn(connection, self.run.run_id, self.iteration) if late else late

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The rendered problems of this iteration, in order.

        Raises:
            ProblemError: a problem of the round is in no configured source any more.
        """
        gone = [name for name in self.problem_ids if name not in self.run.problems]
        if gone:
            raise ProblemError(
                f"{len(gone)} problems of round {self.iteration} are in no configured source any more, the first is "
                f"{gone[0]}. Put the problem file back; a problem leaves a run only when its next epoch begins."
            )
        return [self.run.renderer.render(self.run.problems[name]) for name in self.problem_ids]

    @property
    def generation(self) -> int:
        """How often this round's generation was forced anew in this run or its ancestors."""
        return int(self.run.record.forced.get(f"generate@{self.iteration}", 0))

    @property
    def reset_due(self) -> bool:
        """Whether the reference becomes the policy before this iteration."""
        every = self.run.config.objective.reference_reset_every
        return bool(every and self.iteration > 0 and self.iteration % every == 0)

    @property
    def begins_fork(self) -> bool:
        """Whether the iterations before this one are another run's."""
        return self.iteration > 0 and self.iteration == self.run.record.fork_iteration

    @property
    def checkpoint_due(self) -> bool:
        """Whether the policy is saved after this iteration; the last one is saved at the end of the run."""
        last = self.iteration + 1 == self.run.config.run.iterations
        return (self.iteration + 1) % self.run.config.checkpoint.every == 0 and not last

    @property
    def evaluation_due(self) -> bool:
        """Whether the policy is evaluated after this iteration; the last one is evaluated at the end of the run."""
        every = self.run.config.evaluation.every
        last = self.iteration + 1 == self.run.config.run.iterations
        return bool(every and (self.iteration + 1) % every == 0 and not last)
