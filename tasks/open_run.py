"""Starts an attempt at a run: reads what it needs, records the attempt, opens the doors, and closes them again.

The same configuration and seed name the same run, so the same command goes on where it stopped. A fork is a run of its
own that shares all rows of its parent before the fork.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from reval_core import environment
from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.home import Home, expand
from reval_core.policies.base import BasePolicy, base_policy
from reval_core.policies.folder import base_policy_id, load_model, load_tokenizer, sweep, weights_checksum
from reval_core.policies.materialise import Policies
from reval_core.policies.ranks import Ranks
from reval_core.problems import PromptRenderer
from reval_core.process import ProcessIdentity
from reval_core.rollouts import RolloutEngine, make_engine
from reval_core.store import Store, lineage, runs, schedule, stages
from reval_core.store import problems as stored_problems
from reval_core.store.lineage import PolicyRecord
from reval_core.store.runs import RunRecord
from reval_core.verification import Grader
from tasks import attempt as attempts
from tasks.again import show_crashed
from tasks.aside import Aside
from tasks.device import device_held
from tasks.ending import ended_by_signals, interruptions_told
from tasks.fork import Fork, run_id_of
from tasks.grading import benchmark_rewards, grader_of
from tasks.inputs import Inputs, read_inputs
from tasks.logs import attempt_log
from tasks.overlap import tell_overlap
from tasks.preflight import check_model, check_packages, check_prompts, check_settings, context_length
from tasks.progress import Progress
from tasks.run import Run
from tasks.select import Selection
from tasks.watched import Watch


@contextmanager
def open_run(
    config: Config,
    home: Home,
    *,
    progress: Progress,
    fork: Fork | None = None,
    flow_run_id: str | None = None,
    training: bool = True,
    selection: Selection | None = None,
    run_id: str | None = None,
) -> Iterator[Run]:
    """Start an attempt at the run and end it with its status, whatever happens in the block.

    Without ``training`` the training problems are not read, and several attempts may be open at the same time. With a
    ``selection`` of stored trajectories the training problems are those that they answer. A ``run_id`` is given where
    more than configuration and fork decides which run it is.

    Raises:
        RevalError: the configuration, the model or the problems cannot be used, or another process works on the run.
    """
    check_settings(config)
    check_packages(config)
    inputs = _inputs(config, selection, training=training)
    run_id = run_id or (selection.run_id if selection is not None else run_id_of(config, fork))
    start = _start(config, home, run_id, progress)
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        stack.enter_context(start.store.one_instance())
        base = _base(start, fork)
        tokenizer = load_tokenizer(base.folder)
        renderer = PromptRenderer(tokenizer, config.prompt)
        check_prompts(config, context_length(base.folder), renderer, inputs)
        check_model(config, base.folder, start.device, training=training)
        grader, evaluation_graders = _graders(stack, config)
        record, attempt = _begin(start, fork, base, grader, flow_run_id, alone=training)
        watch = _attend(stack, start, attempt)
        show_crashed(start.store, run_id, attempt, flow_run_id)
        _hold_devices(stack, start, attempt)
        _welcome(start, inputs)
        pad_id = int(tokenizer.pad_token_id or 0)
        run = Run(
            record=record,
            attempt=attempt,
            config=config,
            home=home,
            store=start.store,
            process=ProcessIdentity.mine(),
            base=base,
            tokenizer=tokenizer,
            pad_id=pad_id,
            renderer=renderer,
            problems=inputs.problems,
            weights=inputs.weights,
            benchmarks=inputs.benchmarks,
            policies=_policies(stack, start, base, pad_id),
            engine=_engine(stack, config, pad_id),
            grader=grader,
            evaluation_graders=evaluation_graders,
            progress=progress,
            aside=_aside(stack, start) if training else None,
            watch=watch,
            flow_run_id=flow_run_id,
            history=_history(start),
        )
        _record_base(run)
        if training:
            tell_overlap(run)
        with interruptions_told():
            yield run


@dataclass(frozen=True)
class _Start:
    """What an attempt works with, before it is one."""

    config: Config
    home: Home
    store: Store
    run_id: str
    device: str
    versions: dict[str, Any]
    """Of what results depend on: libraries, device, threads, our own three."""
    progress: Progress


def _start(config: Config, home: Home, run_id: str, progress: Progress) -> _Start:
    """Set this process up, and bring the store to this version."""
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    device = environment.choose_device(config.model.device)
    versions = environment.versions(device, config.learning.ranks)
    store = Store(home.database, lock_wait_s=config.store.lock_wait_s)
    store.prepare()
    sweep(home.policies)
    return _Start(config, home, store, run_id, device, versions, progress)


def _inputs(config: Config, selection: Selection | None, *, training: bool) -> Inputs:
    """Problems and benchmarks; with a selection the problems that its trajectories answer."""
    inputs = read_inputs(config, training=training and selection is None)
    return inputs if selection is None else replace(inputs, problems=selection.problems)


def _base(start: _Start, fork: Fork | None) -> BasePolicy:
    """The run's base model; an existing run keeps the one it began with, a fork its parent's."""
    model, home = start.config.model, start.home
    with start.store.read() as connection:
        known = runs.find(connection, start.run_id)
        if known is None and fork is not None:
            known = runs.find(connection, fork.parent_run_id)
        record = None
        if known is not None and lineage.exists(connection, known.base_policy_id):
            record = lineage.policy(connection, known.base_policy_id)
    if record is not None and record.folder and (home.root / record.folder).is_dir():
        folder = home.root / record.folder
        base = BasePolicy(folder, base_policy_id(folder), record.tokenizer_id)
    else:
        base = base_policy(model, home.models, lambda done, total: start.progress.step("base model", done, total))
    if known is not None and base.policy_id != known.base_policy_id:
        raise ConfigError(
            f"model.path {model.path!r} is now {base.policy_id}, but run {known.run_id} began with "
            f"{known.base_policy_id}. Put the old model back, or give the run another name."
        )
    return base


def _graders(stack: ExitStack, config: Config) -> tuple[Grader, dict[str, Grader]]:
    """What is learned from, and what grades each benchmark; one grader for all that are graded alike."""
    made = [(config.reward, stack.enter_context(grader_of(config.reward)))]
    by_benchmark = {}
    for name, reward in benchmark_rewards(config).items():
        known = next((grader for settings, grader in made if settings == reward), None)
        if known is None:
            known = stack.enter_context(grader_of(reward))
            made.append((reward, known))
        by_benchmark[name] = known
    return made[0][1], by_benchmark


def _begin(
    start: _Start, fork: Fork | None, base: BasePolicy, grader: Grader, flow_run_id: str | None, *, alone: bool
) -> tuple[RunRecord, int]:
    """The run's record and the number of this attempt, from here on in the store."""
    new = attempts.new_run(start.config, start.run_id, fork, base.policy_id, grader.grader_id, start.versions)
    return attempts.begin(
        start.store,
        new,
        grader=grader,
        config=start.config,
        versions=start.versions,
        device=start.device,
        flow_run_id=flow_run_id,
        alone=alone,
        home=start.home,
    )


def _attend(stack: ExitStack, start: _Start, attempt: int) -> Watch:
    """Have the attempt's log written, its end recorded, and its stages watched."""
    stack.enter_context(attempt_log(start.home, start.store, start.run_id, attempt))
    stack.enter_context(attempts.recorded_end(start.home, start.store, start.run_id, attempt))
    watch = stack.enter_context(closing(Watch(start.home, start.run_id, attempt, start.config.limits)))
    start.progress.on_step = watch.progress
    return watch


def _hold_devices(stack: ExitStack, start: _Start, attempt: int) -> None:
    """Wait for every device that the run works on, and hold it to the end."""
    name = f"{start.config.run.name} ({start.run_id}, attempt {attempt})"
    for slot in _slots(start.config, start.device):
        stack.enter_context(device_held(start.home, slot, name))


def _slots(config: Config, device: str) -> list[str]:
    """The devices that the run works on, in an order in which no two runs wait for each other."""
    own = {environment.device_slot(config.model.device)}
    if config.evaluation.device is not None:
        own.add(environment.device_slot(config.evaluation.device))
    if config.learning.ranks == 1 or device == "cpu":
        return sorted(own)
    return sorted(own | {*(f"cuda:{number}" for number in range(config.learning.local_ranks))})


def _welcome(start: _Start, inputs: Inputs) -> None:
    """Store the problems, and say which came in since the last start."""
    with start.store.write() as connection:
        stored_problems.add(connection, inputs.all)
        came = schedule.welcome(connection, start.run_id, inputs.weights)
    if came:
        start.progress.say(f"{len(came):,} problems are new; the next round begins with them")


def _policies(stack: ExitStack, start: _Start, base: BasePolicy, pad_id: int) -> Policies:
    """Every policy of the run by its id, and what learns the next one."""
    config, progress = start.config, start.progress
    return Policies(
        start.store,
        start.home.root,
        base,
        device=start.device,
        compute_dtype=config.model.dtype,
        pad_id=pad_id,
        versions=start.versions,
        gradient_checkpointing=config.model.gradient_checkpointing,
        kernels=config.model.kernels,
        reference=config.model.reference,
        lora=config.model.lora,
        ranks=_ranks(stack, start),
        max_skipped_in_a_row=config.optimizer.max_skipped_in_a_row,
        on_relearned=lambda done, total: progress.step("learning again", done, total),
        on_update=lambda done, total: progress.on_step(),
    )


def _ranks(stack: ExitStack, start: _Start) -> Ranks | None:
    """The processes that learn; None where this one does. They end with the attempt."""
    learning = start.config.learning
    if learning.ranks == 1:
        return None
    threads = start.config.model.threads or max(1, torch.get_num_threads() // learning.local_ranks)
    exchange = start.home.root / "ranks" if learning.folder is None else expand(learning.folder).absolute()
    ranks = Ranks(exchange / start.run_id, learning, device=start.device, threads=threads)
    return stack.enter_context(closing(ranks))


def _engine(stack: ExitStack, config: Config, pad_id: int) -> RolloutEngine:
    """The rollout engine, closed with the attempt."""
    engine = make_engine(
        config.rollouts.engine,
        compute_dtype=config.model.dtype,
        pad_id=pad_id,
        context=config.longest_sequence,
    )
    stack.callback(engine.close)
    return engine


def _aside(stack: ExitStack, start: _Start) -> Aside | None:
    """What evaluates beside the run; None where the run does."""
    config, home = start.config, start.home
    if config.evaluation.device is None or not config.evaluation.benchmarks:
        return None
    return stack.enter_context(closing(Aside(config, home, home.logs / start.run_id / "evaluations.log")))


def _history(start: _Start) -> dict[tuple[int, str, str], dict[str, Any]]:
    """Outputs of what is committed along the run's chain."""
    with start.store.read() as connection:
        return stages.history(connection, start.run_id)


def _record_base(run: Run) -> None:
    """Store the base policy, which every other one comes from, where it is not there."""
    with run.store.read() as connection:
        known = lineage.exists(connection, run.base.policy_id)
    if known:
        return
    model = load_model(run.base.folder)
    record = PolicyRecord(
        policy_id=run.base.policy_id,
        kind="base",
        parent_policy_id=None,
        reference_policy_id=None,
        settings={"path": run.config.model.path, "revision": run.config.model.revision},
        updates_done=0,
        tokenizer_id=run.base.tokenizer_id,
        weights_checksum=weights_checksum(model),
        folder=run.base_folder,
    )
    with run.store.write() as connection:
        lineage.add_policy(connection, record, run_id=run.run_id, attempt=run.attempt)
