"""The loop alone: generate, verify, score, learn in one process, with nothing kept but the replay window in memory.

What orchestration costs is held against it (benchmarks/orchestration.py). Requests, seeds, draws and order are those of
`reval train`, so losses and weights come out the same to the last bit.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, islice

import numpy as np
from torch import nn

from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.identity import ROLLOUT_VERSION, sample_seed
from reval_core.learning import reference
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner, UpdateReport
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import load_model, load_tokenizer
from reval_core.policies.materialise import learning_settings
from reval_core.problems import Problem, Prompt, PromptRenderer
from reval_core.problems.schedule import epoch_order
from reval_core.rollouts import SampleRequest, SamplingSettings, make_engine
from reval_core.store.draws import Window, generator
from reval_core.store.lineage import Draw, LearningStep, PlannedUpdate
from reval_core.store.replay import strategy
from reval_core.store.trajectories import BatchRecord, prompt_digest, trajectory_id
from reval_core.verification import Grader


@dataclass(frozen=True)
class Round:
    """What an iteration gave."""

    iteration: int
    policy_id: str
    losses: tuple[float, ...]
    """Of each update."""
    correct: int
    seconds: float
    """Of the work; naming policy and batch, which the seeds derive from, is not counted."""


class PlainLoop:
    """Policy, reference, engine and window of one run; iterate over `rounds`.

    Args:
        config: 0/1 rewards by the verifier, uniform draws and one reference; nothing else is written out here.
        base: the base model.
        problems: training problems by id.
        weights: how often each comes in an epoch.

    Raises:
        ConfigError: the configuration asks for more.
    """

    def __init__(
        self, config: Config, base: BasePolicy, problems: Mapping[str, Problem], weights: Mapping[str, float]
    ) -> None:
        reward, objective = config.reward, config.objective
        wanted = {
            "rollouts.token_budget": (config.rollouts.token_budget, None),
            "rollouts.deadline_s": (config.rollouts.deadline_s, None),
            "reward.use": (reward.use, "math"),
            "reward.transform": (reward.transform, "binary"),
            "reward.truncated": (reward.truncated, "keep"),
            "replay.draw": (config.replay.draw, "uniform"),
            "replay.unit": (config.replay.unit, "trajectories"),
            "replay.excludes_fresh": (config.replay.excludes_fresh, False),
            "objective.use": (objective.use, "reval"),
            "objective.reference_reset_every": (objective.reference_reset_every, None),
        }
        for key, (given, known) in wanted.items():
            if given != known:
                raise ConfigError(f"The plain loop knows {key} = {known!r} only, not {given!r}.")
        self.config, self.base, self.problems, self.weights = config, base, problems, weights
        self.tokenizer = load_tokenizer(base.folder)
        self.renderer = PromptRenderer(self.tokenizer, config.prompt)
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.engine = make_engine(config.rollouts.engine, compute_dtype=config.model.dtype, pad_id=self.pad_id)
        self.grader = Grader(workers=reward.workers, timeout_s=reward.timeout_s, extraction=reward.extraction)
        self.reference = load_model(base.folder).requires_grad_(False)
        self.learner = Learner(
            load_model(base.folder),
            objective,
            config.optimizer,
            pad_id=self.pad_id,
            compute_dtype=config.model.dtype,
        )
        self.policy_id = base.policy_id
        self.window: deque[TrainingExample] = deque(maxlen=config.replay.capacity)
        rollouts = config.rollouts
        self.sampling = SamplingSettings(
            max_new_tokens=rollouts.max_new_tokens,
            temperature=rollouts.temperature,
            top_p=rollouts.top_p,
            top_k=rollouts.top_k,
            stop_ids=self.renderer.stop_ids,
        )

    @property
    def model(self) -> nn.Module:
        """The policy."""
        return self.learner.model

    def rounds(self) -> Iterator[Round]:
        """Iterations, each worked out when it is asked for."""
        schedule = chain.from_iterable(
            epoch_order(sorted(self.weights.items()), self.config.run.seed, epoch) for epoch in count()
        )
        for iteration in range(self.config.run.iterations):
            names = list(islice(schedule, self.config.rollouts.prompts_per_iteration))
            started = time.perf_counter()
            prompts = [self.renderer.render(self.problems[name]) for name in names]
            paused = time.perf_counter()
            batch_id = self._batch_id(prompts, iteration)
            unnamed = time.perf_counter() - paused
            fresh, correct = self._fresh(batch_id, prompts)
            self.window.extend(fresh)
            updates = [fresh] * self.config.objective.updates.on_policy
            updates += [self._drawn(iteration, update) for update in range(self.config.objective.updates.off_policy)]
            self.learner.begin_round(fresh)
            reports: list[UpdateReport] = [self.learner.update(examples) for examples in updates]
            seconds = time.perf_counter() - started - unnamed
            self.policy_id = self._next_policy_id(updates)
            losses = tuple(report.loss for report in reports)
            yield Round(iteration, self.policy_id, losses, correct, seconds)

    def _fresh(self, batch_id: str, prompts: list[Prompt]) -> tuple[list[TrainingExample], int]:
        """The round's responses, graded and scored, in their canonical order; and how many are right."""
        self.engine.load(self.policy_id, self.model)
        sampled = self.engine.sample(self._requests(batch_id, prompts), self.sampling)
        samples = sorted(sampled, key=lambda done: (done.request.problem_id, done.request.sample_index))
        texts = [
            self.tokenizer.decode(
                list(done.token_ids[:-1] if done.finish_reason == "stop" else done.token_ids),
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
            for done in samples
        ]
        pairs = [(self.problems[done.request.problem_id], text) for done, text in zip(samples, texts, strict=True)]
        verdicts = self.grader.grade_batch(pairs)
        examples = [
            TrainingExample(
                trajectory_id=trajectory_id(batch_id, done.request.problem_id, done.request.sample_index),
                group_id=f"{batch_id}/{done.request.problem_id}",
                prompt_ids=np.array(done.request.prompt_ids, np.int32),
                response_ids=np.array(done.token_ids, np.int32),
                reward=1.0 if verdict.reward > 0 else 0.0,
            )
            for done, verdict in zip(samples, verdicts, strict=True)
        ]
        logprob, root_value = reference.reference_scores(
            self.reference,
            examples,
            max_tokens=self.config.optimizer.max_tokens_per_micro_batch,
            temperature=self.config.objective.policy_temperature,
            compute_dtype=self.config.model.dtype,
            pad_id=self.pad_id,
        )
        scored = [
            replace(example, ref_logprob=float(a), ref_root_value=float(b))
            for example, a, b in zip(examples, logprob, root_value, strict=True)
        ]
        return scored, sum(verdict.status == "correct" for verdict in verdicts)

    def _drawn(self, iteration: int, update: int) -> list[TrainingExample]:
        pick, size = strategy(self.config.replay), self.config.batch_size
        window = Window(np.array([iteration]), np.array([len(self.window)]))
        drawn = pick(window, size, generator(self.config.run.seed, iteration, update), iteration=iteration)
        return [self.window[place] for place in drawn.places]

    def _requests(self, batch_id: str, prompts: list[Prompt]) -> list[SampleRequest]:
        seen: Counter[str] = Counter()
        requests = []
        for prompt in prompts:
            for _ in range(self.config.rollouts.rollouts_per_prompt):
                index = seen[prompt.problem_id]
                seen[prompt.problem_id] += 1
                seed = sample_seed(batch_id, self.config.run.seed, prompt.problem_id, index)
                requests.append(SampleRequest(prompt.problem_id, index, seed, prompt.token_ids))
        return requests

    def _batch_id(self, prompts: list[Prompt], iteration: int) -> str:
        """As `tasks.generate` names the batch: the seeds of its samples derive from it."""
        return BatchRecord(
            purpose="training",
            policy_id=self.policy_id,
            weights_checksum="",
            tokenizer_id=self.base.tokenizer_id,
            round=iteration,
            generation=0,
            engine=self.engine.name,
            sampling={
                **self.sampling.recorded(),
                "seed": self.config.run.seed,
                "version": ROLLOUT_VERSION,
                "engine_args": self.config.rollouts.engine.args,
            },
            prompt_ids=tuple(prompt_digest(prompt.token_ids) for prompt in prompts),
            problem_ids=tuple(prompt.problem_id for prompt in prompts),
            samples_per_prompt=self.config.rollouts.rollouts_per_prompt,
        ).batch_id

    def _next_policy_id(self, updates: list[list[TrainingExample]]) -> str:
        """As `tasks.learn` names the policy: the next batch's id derives from it."""
        planned = tuple(
            PlannedUpdate("", tuple(Draw(e.trajectory_id, e.reward, e.weight, e.group_id) for e in update))
            for update in updates
        )
        return LearningStep(
            parent_policy_id=self.policy_id,
            reference_policy_id=self.base.policy_id,
            settings=learning_settings(self.config.objective, self.config.optimizer, self.config.model.dtype),
            updates_before=self.learner.updates_done - len(updates),
            updates=planned,
        ).policy_id
