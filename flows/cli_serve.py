"""The command ``reval serve``: server, MLflow's UI, deployments and runner, until Ctrl-C."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from reval_core.errors import RevalError
from reval_core.home import find_home
from tasks.progress import Progress
from tasks.services import configure

app = typer.Typer()


@app.command()
def serve(
    deployments: Annotated[Path, typer.Option(help="File in the format of prefect.yaml.")] = Path("prefect.yaml"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of Prefect's server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of MLflow's UI.")] = 5000,
    limit: Annotated[int | None, typer.Option(min=1, help="Runs at once; by default as many as come.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(envvar="REVAL_WEBHOOK", help="Address that is told of breaches, failed, crashed and late runs."),
    ] = None,
    grace: Annotated[float, typer.Option(min=1, help="Seconds that runs have to end when this ends.")] = 30.0,
) -> None:
    """Offer the flows in a UI: forms, schedules, reruns. Everything is on 127.0.0.1 and ends with Ctrl-C."""
    home = find_home()
    configure(home)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from tasks.serving import serving

    with ExitStack() as stack, Progress() as progress:
        progress.say(f"root {home.root}")
        with progress.waiting("starting Prefect's server, MLflow's UI and a runner"):
            served, runner = stack.enter_context(
                serving(
                    home,
                    deployments=deployments,
                    port=port,
                    mlflow_port=mlflow_port,
                    grace_s=grace,
                    limit=limit,
                    webhook=webhook,
                )
            )
        for name, address in (
            ("forms, runs, schedules", f"{served.ui}/deployments"),
            ("MLflow", served.mlflow or "your own server"),
            ("Prefect's API", served.api),
            ("logs", str(home.logs)),
        ):
            progress.say(f"{name:<24}{address}")
        progress.say("Ctrl-C ends everything; runs that are at work go on when they are started again.")
        code = runner.wait()
    raise RevalError(f"The runner ended by itself with code {code}; {home.logs / 'runner.log'} says why.")
