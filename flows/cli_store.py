"""The group ``reval store``: what the store holds, and its upkeep. Bodies are in flows/storing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import console
from reval_core.home import Home, find_home
from tasks.progress import Progress

app = typer.Typer(help="What the store holds, and its upkeep: stats, snapshot, backup.", no_args_is_help=True)


@app.command()
def stats(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Show rows and bytes of each table, and of everything else under the root."""
    from flows import storing

    storing.show_stats(find_home(), console, as_json=as_json)


@app.command()
def snapshot(
    payloads: Annotated[
        bool, typer.Option("--payloads", help="With tokens and texts, however many; else only while they are few.")
    ] = False,
) -> None:
    """Publish a read-only copy beside the database for dashboards and slow queries."""
    from flows import storing

    with Progress() as progress:
        storing.snapshot(find_home(), payloads, progress)


@app.command()
def vacuum(
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nobody works on a run.")] = False,
) -> None:
    """Rewrite the database so that it gives back the space of what was deleted."""
    from flows import storing

    with Progress() as progress:
        storing.vacuum(find_home(), wait, progress)


@app.command()
def backup(
    dest: Annotated[Path, typer.Argument(help="New folder, or an earlier backup of this store to bring up to date.")],
    database_only: Annotated[
        bool, typer.Option("--database-only", help="Without policies, models, archives and waiting parts.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also MLflow, Prefect, logs and reports, which no run needs.")
    ] = False,
) -> None:
    """Copy the root into a folder of its own, also while runs go on."""
    from flows import storing

    with Progress() as progress:
        storing.back_up(find_home(), dest, progress, database_only=database_only, everything=everything)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A backup, another root, or a database file alone.")],
    to: Annotated[Path | None, typer.Option("--to", help="Root to make; by default REVAL_HOME.")] = None,
) -> None:
    """Make a root from a backup; nothing is overwritten."""
    from flows import storing

    with Progress() as progress:
        storing.restore(source, Home(to.expanduser().resolve()) if to else find_home(), progress)
