"""Opens a run: finds or makes its base model, problems, store rows and engine, and closes them again whatever happens.

The same configuration and seed name the same run, so the same command goes on where it stopped. A fork is a run of its
own that shares all rows of its parent before the fork.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reval_core import environment
from reval_core.config import Config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.identity import digest
from reval_core.learning.objectives import check
from reval_core.policies.base import BasePolicy, base_policy
from reval_core.policies.folder import base_policy_id, load_model, load_tokenizer, sweep, weights_checksum
from reval_core.policies.materialise import Policies
from reval_core.problems import Problem, PromptRenderer, load_problems
from reval_core.problems.prompts import check_lengths
from reval_core.rollouts import make_engine
from reval_core.store import Store, lineage, replay, runs, stages, trajectories
from reval_core.store import problems as stored_problems
from reval_core.store.lineage import PolicyRecord
from reval_core.store.runs import RunRecord
from reval_core.store.stages import ProcessIdentity
from reval_core.verification import VERIFIER_VERSION, Grader, check_gold
from tasks.logs import attempt_log
from tasks.progress import Progress
from tasks.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fork:
    """Where a run branches off another one."""

    parent_run_id: str
    iteration: int
    """First iteration that is the fork's own."""
    forced: Mapping[str, int] = field(default_factory=dict)
    """``generate@iteration`` to its generation."""


def run_id_of(config: Config, fork: Fork | None = None) -> str:
    """Name of the run that a configuration (and a fork) stands for."""
    made_of: list[Any] = [config.identity()]
    if fork is not None:
        made_of += [fork.parent_run_id, fork.iteration, dict(fork.forced)]
    return f"{config.run.name}-{digest('run', made_of).removeprefix('run_')[:8]}"


@contextmanager
def open_run(
    config: Config,
    home: Home,
    *,
    progress: Progress,
    fork: Fork | None = None,
    flow_run_id: str | None = None,
    training: bool = True,
) -> Iterator[Run]:
    """Start an attempt at the run and end it with its status, whatever happens in the block.

    Without ``training`` the training problems are not read, and several attempts may be open at the same time.

    Raises:
        RevalError: the configuration, the model or the problems cannot be used, or another process works on the run.
    """
    check_settings(config)
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    device = environment.choose_device(config.model.device)
    versions = environment.versions(device)
    store = Store(home.database, lock_wait_s=config.store.lock_wait_s)
    store.prepare()
    sweep(home.policies)
    run_id = run_id_of(config, fork)
    process = ProcessIdentity.mine()
    with ExitStack() as stack:
        stack.enter_context(_signals())
        base = _base(config, home, store, run_id, fork, progress)
        tokenizer = load_tokenizer(base.folder)
        renderer = PromptRenderer(tokenizer, config.prompt)
        problems, weights = read_problems(config) if training else ([], {})
        if problems:
            _check_context(config, base.folder, renderer, problems)
            with store.write() as connection:
                stored_problems.add(connection, problems)
        grader = stack.enter_context(_grader(config, config.reward.extraction))
        evaluation_grader = grader
        if config.reward.use != "math" or config.evaluation.extraction != config.reward.extraction:
            # benchmarks have gold answers, whatever reward is learned from
            evaluation_grader = stack.enter_context(_grader(config, config.evaluation.extraction, use="math"))
        record, attempt = _start(
            store, config, fork, run_id, base, grader, process, versions, device, flow_run_id, training
        )
        stack.enter_context(attempt_log(home, store, run_id, attempt))
        stack.enter_context(_recorded_end(store, run_id, attempt))
        pad_id = int(tokenizer.pad_token_id or 0)
        policies = Policies(
            store,
            home.root,
            base,
            device=device,
            compute_dtype=config.model.dtype,
            pad_id=pad_id,
            versions=versions,
            gradient_checkpointing=config.model.gradient_checkpointing,
        )
        engine = make_engine(config.rollouts.engine, compute_dtype=config.model.dtype, pad_id=pad_id)
        stack.callback(engine.close)
        run = Run(
            record=record,
            attempt=attempt,
            config=config,
            home=home,
            store=store,
            process=process,
            base=base,
            tokenizer=tokenizer,
            renderer=renderer,
            problems={problem.problem_id: problem for problem in problems},
            weights=weights,
            policies=policies,
            engine=engine,
            grader=grader,
            evaluation_grader=evaluation_grader,
            progress=progress,
            flow_run_id=flow_run_id,
        )
        with store.read() as connection:
            run.history = stages.history(connection, run_id)
        _record_base(run)
        yield run


def check_settings(config: Config) -> None:
    """Refuse what cannot go together, and names that lead nowhere, before anything is made.

    Raises:
        ConfigError: says which setting to change.
    """
    objective = check(config.objective, config.rollouts.rollouts_per_prompt)
    grouped = "group" in objective.needs
    replay.strategy(config.replay.draw, whole_groups=grouped)
    if grouped and config.reward.truncated == "drop":
        raise ConfigError(
            f"reward.truncated 'drop' can leave one response of a group, and {objective.name!r} compares the responses "
            "of a group. Use 'keep' or 'mask_negative'."
        )
    reward = config.reward
    if reward.transform == "centred" and reward.truncated == "drop":
        raise ConfigError(
            "reward.truncated 'drop' can leave one response of a group, whose centred reward is 0 whether it is right "
            "or wrong. Use 'keep' or 'mask_negative' with reward.transform 'centred'."
        )
    if reward.use != "math" and reward.transform in ("raw", "centred") and reward.truncated == "mask_negative":
        raise ConfigError(
            "reward.truncated 'mask_negative' takes a cut response for a wrong one, and a reward that is a number of "
            "its own knows no wrong. Let it judge cut text itself ('keep'), or 'drop' it."
        )


def read_problems(config: Config) -> tuple[list[Problem], dict[str, float]]:
    """All training problems and how often each comes in an epoch."""
    gold_check = check_gold if config.reward.use == "math" else None
    problems: dict[str, Problem] = {}
    weights: dict[str, float] = {}
    contradicted: list[str] = []
    for source in config.problems:
        for problem in load_problems(source, gold_check):
            known = problems.setdefault(problem.problem_id, problem)
            if known.gold_digest != problem.gold_digest:
                places = f"{known.source} {known.external_id} says {known.gold!r}, {problem.source} "
                contradicted.append(places + f"{problem.external_id} says {problem.gold!r}")
            weights[problem.problem_id] = max(weights.get(problem.problem_id, 0.0), source.weight)
    if contradicted:
        log.warning(
            "%d questions stand in the problem files with two gold answers; the first one counts: %s",
            len(contradicted),
            contradicted[0],
        )
    return list(problems.values()), weights


def _grader(config: Config, extraction: Any, *, use: str | None = None) -> Grader:
    reward = config.reward
    return Grader(
        use or reward.use,
        reward.args if use is None else {},
        workers=reward.workers,
        timeout_s=reward.timeout_s,
        memory_gb=reward.memory_gb,
        extraction=extraction,
        policy=reward.policy,
    )


def _base(config: Config, home: Home, store: Store, run_id: str, fork: Fork | None, progress: Progress) -> BasePolicy:
    """The run's base model; an existing run keeps the one it began with, a fork its parent's."""
    with store.read() as connection:
        known = runs.find(connection, run_id)
        if known is None and fork is not None:
            known = runs.find(connection, fork.parent_run_id)
        record = None
        if known is not None and lineage.exists(connection, known.base_policy_id):
            record = lineage.policy(connection, known.base_policy_id)
    if record is not None and record.folder and (home.root / record.folder).is_dir():
        folder = home.root / record.folder
        base = BasePolicy(folder, base_policy_id(folder), record.tokenizer_id)
    else:
        base = base_policy(config.model, home.models, lambda done, total: progress.step("base model", done, total))
    if known is not None and base.policy_id != known.base_policy_id:
        raise ConfigError(
            f"model.path {config.model.path!r} is now {base.policy_id}, but run {known.run_id} began with "
            f"{known.base_policy_id}. Put the old model back, or give the run another name."
        )
    return base


def _check_context(config: Config, folder: Path, renderer: PromptRenderer, problems: list[Problem]) -> None:
    """Refuse prompts that are too long for the settings or the model, before anything is generated."""
    prompts = [renderer.render(problem) for problem in problems]
    by_id = {problem.problem_id: problem for problem in problems}
    check_lengths(prompts, by_id, max_prompt_tokens=config.rollouts.max_prompt_tokens)
    context = context_length(folder)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if context is not None and longest + config.rollouts.max_new_tokens > context:
        raise ConfigError(
            f"The longest prompt has {longest} tokens; with rollouts.max_new_tokens = {config.rollouts.max_new_tokens} "
            f"it passes the model's context of {context}. Lower max_new_tokens, or leave long prompts out."
        )


def context_length(folder: Path) -> int | None:
    """Positions that the model was made for, as its config.json says."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return getattr(config, "max_position_embeddings", None)


def _start(
    store: Store,
    config: Config,
    fork: Fork | None,
    run_id: str,
    base: BasePolicy,
    grader: Grader,
    process: ProcessIdentity,
    versions: dict[str, Any],
    device: str,
    flow_run_id: str | None,
    training: bool,
) -> tuple[RunRecord, int]:
    """Record the run, if it is new, and this attempt at it."""
    with store.write() as connection:
        record = runs.find(connection, run_id)
        if record is None:
            record = RunRecord(
                run_id=run_id,
                name=config.run.name,
                config=config.model_dump(mode="json"),
                config_id=config.config_id,
                seed=config.run.seed,
                base_policy_id=base.policy_id,
                verifier_id=grader.grader_id,
                versions=versions,
                parent_run_id=fork.parent_run_id if fork else None,
                fork_iteration=fork.iteration if fork else None,
                forced=dict(fork.forced) if fork else {},
            )
            if fork is not None and runs.find(connection, fork.parent_run_id) is None:
                raise StoreError(
                    f"There is no run {fork.parent_run_id} to fork from. `reval runs` lists what there is."
                )
            runs.add(connection, record)
        if training:
            _refuse_another_attempt(runs.living_attempts(connection, run_id), run_id, process)
        before = runs.last_versions(connection, run_id)
        attempt = runs.start_attempt(
            connection,
            run_id,
            process,
            git_commit=environment.git_commit(),
            versions=versions,
            device=environment.device_name(device),
            flow_run_id=flow_run_id,
        )
        trajectories.add_verifier(
            connection,
            grader.grader_id,
            config.reward.use,
            VERIFIER_VERSION,
            {"extraction": config.reward.extraction, "policy": config.reward.policy, "args": config.reward.args},
        )
        changed = environment.changes(before, versions) if before else []
        if grader.grader_id != record.verifier_id:
            changed.append(f"verifier {record.verifier_id} -> {grader.grader_id}")
        if changed:
            message = "; ".join(changed)
            log.warning("goes on under other versions: %s", message)
            runs.add_event(connection, run_id, attempt, None, "changed versions", message)
    return record, attempt


def _refuse_another_attempt(living: Mapping[int, ProcessIdentity], run_id: str, me: ProcessIdentity) -> None:
    for attempt, process in living.items():
        if process != me:
            raise StoreError(
                f"Run {run_id} is being worked on by process {process.pid} (attempt {attempt}). Wait for it or end "
                "it; two attempts at one run would only do the same work twice."
            )


def _record_base(run: Run) -> None:
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


@contextmanager
def _recorded_end(store: Store, run_id: str, attempt: int) -> Iterator[None]:
    status, message = "failed", None
    try:
        yield
        status = "completed"
    except KeyboardInterrupt:
        status, message = "cancelled", "asked to end"
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        log.info("the attempt failed", exc_info=True)  # for the log file; the terminal shows the message
        raise
    finally:
        try:
            with store.write(wait_s=5.0) as connection:
                runs.end_attempt(connection, run_id, attempt, status, message)
        except StoreError as error:
            # the next attempt sees that this process is gone
            log.warning("the end of attempt %d could not be recorded: %s", attempt, error)


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: the stage that is under way is dropped, what is committed stays.

    It raises KeyboardInterrupt, too: an `Exception` would be swallowed by libraries that shield themselves from errors.
    """
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread, as under a Prefect runner's own handling
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
