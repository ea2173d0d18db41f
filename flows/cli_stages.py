"""The commands for one stage alone: ``reval generate`` and ``reval rerun``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Overrides, console, served
from reval_core.home import find_home
from tasks.progress import Progress
from tasks.services import configure

app = typer.Typer()


@app.command()
def generate(
    policy: Annotated[
        str, typer.Argument(help="Policy id (or its first digits), best:RUN, latest, a model folder, or builtin:tiny.")
    ],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of prompts times rollouts responses.")] = 1,
    config: Annotated[
        Path | None, typer.Option(help="Configuration for problems, prompts and sampling; by default the policy's own.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Sample, grade and store responses of a policy, to learn from later."""
    home = find_home()
    with Progress() as progress:
        progress.say(f"root {home.root}")
        configure(home)
        with progress.waiting("loading libraries"):
            from flows.closing import show_generated
            from flows.generate import generate_flow, generation_of
            from flows.starting import policy_named
        name = policy_named(home, policy, str(config) if config else None)
        settings, policy_id = generation_of(home, name, rounds, str(config) if config else None, overrides or [])
        with served(home, progress):
            done = generate_flow(settings, home, progress, policy_id)
    show_generated(done, console)


@app.command()
def rerun(
    run: Annotated[str, typer.Argument(help="Run id, or its first letters.")],
    stage: Annotated[str, typer.Option("--stage", help="generate, verify, persist or learn.")],
    iteration: Annotated[int, typer.Option("--round", min=0, help="The round, counted from 0.")],
    force: Annotated[bool, typer.Option("--force", help="Sample the round anew; only for generate.")] = False,
    overrides: Overrides = None,
) -> None:
    """Do one stage of one round again: unchanged output makes nothing, changed output opens a fork that goes on."""
    from flows import asking

    home = find_home()
    run_id = asking.find_run(asking.store_of(home), run)
    with Progress() as progress:
        progress.say(f"root {home.root}")
        configure(home)
        with progress.waiting("loading libraries"):
            from flows.closing import show_outcome
            from flows.rerun import rerun as planned
            from flows.train import train
        plan = planned(home, run_id, stage, iteration, force=force, overrides=overrides or [], progress=progress)
        progress.say(plan.why)
        if plan.fork is None:
            return
        with served(home, progress):
            done = train(plan.config, home, progress, plan.fork)
    show_outcome(done, (), console)
