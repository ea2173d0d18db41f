"""The flows as a server offers them: `prefect.yaml` names them, `reval serve` brings them up.

Each takes what a person would write into a form, resolves words such as "latest" once, and then does what the command
of the same name does. Parameters are checked by the server before a run begins; what is left out stays as the
configuration file has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows import choosing, storing
from flows.forms import Settings, configured
from flows.generate import generate_flow, generation_of
from flows.judging import compare, evaluate, experiment, rescore
from flows.learn import learn_stored
from flows.offered import Answer, ConfigFile, Count, Words, at_work, plain
from flows.opening import LATEST
from flows.rerun import Rerun, StageName
from flows.rerun import rerun as planned
from flows.starting import Training, policy_named, resolved, training
from flows.train import train as train_flow
from reval_core.config_files import parse_config
from reval_core.store import Store, archive
from tasks import prune as pruning
from tasks.again import try_again
from tasks.context import flow_run_id, nothing_to_do
from tasks.preflight import check_settings

__all__ = ["compare", "evaluate", "experiment", "generate", "learn", "maintain", "rerun", "rescore", "train"]
PRUNE_WAIT_S = 60.0
"""Seconds to wait for another process that archives or prunes."""


@flow(
    name="train",
    flow_run_name="train {config}",
    validate_parameters=True,
    on_failure=[try_again],
    on_crashed=[try_again],
)
def train(
    config: ConfigFile = "configs/quickstart.yaml",
    continue_from: Words | None = None,
    add_iterations: Count | None = None,
    only_new_problems: bool = False,
    fork_from: Words | None = None,
    force: Words | None = None,
    overrides: list[str] | None = None,
    settings: Settings = Settings(),  # type: ignore[valid-type]  # noqa: B008
) -> Any:
    """Train a policy: generate, verify, score, persist, learn, round by round.

    Started again with the same settings, it goes on with the run that is there, or finds that all is done.

    Args:
        config: Configuration file, on the machine that runs it.
        settings: What to change of it; a field that is left empty stays as in the file.
        overrides: The same as lines key.path=value, also for what no field takes, as replay.capacity=null.
        continue_from: latest (the run of this name that was started last), best (the policy that is best at the first
            benchmark), a run id, or RUN@ROUND. Empty: the run that the configuration names.
        add_iterations: Rounds on top of those that are there. Empty: until run.iterations.
        only_new_problems: Train only if the problem sources have something that no round of the run has drawn.
        fork_from: RUN@ROUND to branch off, sharing every row before it.
        force: generate@ROUND: sample that round anew, in a fork.
    """
    with at_work() as (home, progress):
        asked = {
            "config": config,
            "settings": settings.model_dump(mode="json"),  # type: ignore[attr-defined]
            "overrides": overrides or [],
            "continue_from": continue_from,
            "add_iterations": add_iterations,
            "only_new_problems": only_new_problems,
            "fork_from": fork_from,
            "force": force,
        }

        def mean() -> Answer:
            wanted = configured(config, settings, overrides or [])
            check_settings(wanted)
            return training(
                wanted,
                home,
                continue_from=continue_from,
                add_iterations=add_iterations,
                only_new_problems=only_new_problems,
                fork_from=fork_from,
                force=force,
            ).as_json()

        start = Training.from_json(resolved(home, flow_run_id(), "train", asked, mean))
        progress.say(f"run {start.run_id}, to round {start.config.run.iterations}")
        if start.nothing_new:
            return nothing_to_do(f"{start.run_id} has had every problem of its sources: nothing is new")
        return plain(train_flow.fn(start.config, home, progress, start.fork))


@flow(
    name="learn",
    flow_run_name="learn {config}",
    validate_parameters=True,
    on_failure=[try_again],
    on_crashed=[try_again],
)
def learn(
    trajectories: Words,
    parameters: dict[str, str] | None = None,
    config: ConfigFile = "configs/quickstart.yaml",
    overrides: list[str] | None = None,
    settings: Settings = Settings(),  # type: ignore[valid-type]  # noqa: B008
) -> Any:
    """Learn from stored trajectories alone: updates, and no generation.

    Args:
        trajectories: window:RUN, run:RUN, a named query, the path of a .sql file, or SQL with a column trajectory_id.
        parameters: Values of $name in the query.
        config: Configuration file, on the machine that runs it.
        settings: What to change of it; a field that is left empty stays as in the file.
        overrides: The same as lines key.path=value.
    """
    with at_work() as (home, progress):
        asked = {"trajectories": trajectories, "parameters": parameters or {}, "config": config}

        def mean() -> Answer:
            wanted = configured(config, settings, overrides or [])
            given = [f"{name}={value}" for name, value in (parameters or {}).items()]
            return choosing.with_selection(wanted, home, trajectories, given).model_dump(mode="json")

        chosen = parse_config(resolved(home, flow_run_id(), "learn", asked, mean))
        return plain(learn_stored.fn(chosen, home, progress))


@flow(name="generate", flow_run_name="generate {policy}", validate_parameters=True)
def generate(
    policy: Words = LATEST,
    rounds: Count = 1,
    config: ConfigFile | None = None,
    overrides: list[str] | None = None,
) -> Any:
    """Sample, grade and store responses of a policy, to learn from later.

    Args:
        policy: latest (the newest saved one), a policy id or its first digits, a model folder, or builtin:tiny.
        rounds: Rounds of prompts_per_iteration x rollouts_per_prompt responses.
        config: Configuration file for problems, prompts and sampling. Empty: that of the policy's own run.
        overrides: Settings to change, as lines key.path=value.
    """
    with at_work() as (home, progress):

        def mean() -> Answer:
            wanted, policy_id = generation_of(home, policy_named(home, policy, config), rounds, config, overrides or [])
            return {"policy_id": policy_id, "config": wanted.model_dump(mode="json")}

        asked = {"policy": policy, "rounds": rounds, "config": config, "overrides": overrides or []}
        start = resolved(home, flow_run_id(), "generate", asked, mean)
        done = generate_flow.fn(parse_config(start["config"]), home, progress, start["policy_id"])
        return plain(done)


@flow(
    name="rerun",
    flow_run_name="rerun {from_stage} of round {iteration} of {run_id}",
    validate_parameters=True,
    on_failure=[try_again],
    on_crashed=[try_again],
)
def rerun(
    run_id: Words,
    from_stage: StageName = "verify",
    iteration: Annotated[int, Field(ge=0)] = 0,
    force: bool = False,
    overrides: list[str] | None = None,
) -> Any:
    """Do one stage of one round again: unchanged output makes nothing, changed output opens a fork that goes on.

    Args:
        run_id: The run, or the first letters of its id.
        from_stage: generate changes only by force; verify and persist where the round would be graded otherwise now;
            learn where any round that it draws from would.
        iteration: The round, counted from 0.
        force: Sample the round anew; only for generate.
        overrides: Settings that the fork is to have otherwise, as reward.extraction=lenient.
    """
    with at_work() as (home, progress):

        def mean() -> Answer:
            run = choosing.whole_names(home, f"run:{run_id}").removeprefix("run:")
            return planned(
                home, run, from_stage, iteration, force=force, overrides=overrides or [], progress=progress
            ).as_json()

        asked = {"run_id": run_id, "from_stage": from_stage, "iteration": iteration, "force": force}
        plan = Rerun.from_json(resolved(home, flow_run_id(), "rerun", asked, mean))
        progress.say(plan.why)
        if plan.fork is None:
            return nothing_to_do(plan.why)
        return plain(train_flow.fn(plan.config, home, progress, plan.fork)) | {"why": plan.why}


@flow(name="maintain", flow_run_name="maintain the store", validate_parameters=True)
def maintain(
    snapshot: bool = True,
    vacuum: bool = False,
    backup_to: Words | None = None,
    prune: bool = False,
) -> Any:
    """Look after the store.

    Args:
        snapshot: Publish a read-only copy for dashboards and slow queries.
        vacuum: Rewrite the database so that it gives back the space of what was deleted; waits until no run is at work.
        backup_to: Folder for a backup, or an earlier backup to bring up to date.
        prune: Remove what the rules of `retention` of each run do not keep; `reval prune --dry-run` lists it first.
    """
    with at_work() as (home, progress):
        if backup_to is not None:
            storing.back_up(home, Path(backup_to), progress, database_only=False, everything=False)
        if prune:
            store = Store(home.database)
            with archive.alone(store, PRUNE_WAIT_S):
                done = pruning.carry_out(home, store, pruning.rules_of(store), progress=progress.step)
            progress.say(str(done) or "nothing to prune")
        if vacuum:
            storing.vacuum(home, wait=True, progress=progress)
        if snapshot:
            storing.snapshot(home, payloads=False, progress=progress)
        return {"snapshot": snapshot, "vacuum": vacuum, "backup_to": backup_to, "prune": prune}
