"""The commands that make room: ``reval store archive`` and ``reval prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import console
from reval_core.errors import ConfigError
from reval_core.home import find_home

app = typer.Typer(no_args_is_help=True, add_completion=False)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]


@app.command()
def archive(
    dry_run: DryRun = False,
    drop: Annotated[bool, typer.Option("--drop", help="Remove them for good, archived ones too.")] = False,
    older_than_rounds: Annotated[
        int, typer.Option("--older-than-rounds", min=0, help="Only what was sampled so many rounds before the newest.")
    ] = 0,
    run: Annotated[str | None, typer.Option(help="Only what this run sampled; a run id or its first letters.")] = None,
    evaluations: Annotated[bool, typer.Option("--evaluations", help="Responses of finished evaluations, too.")] = False,
    bring_back: Annotated[bool, typer.Option("--bring-back", help="Put archived ones back into the database.")] = False,
    yes: Yes = False,
) -> None:
    """Move tokens and texts that no run needs to Parquet files beside the database."""
    from flows import pruning
    from reval_core.store.outside import Choice

    if bring_back and (drop or older_than_rounds or evaluations):
        raise ConfigError("--bring-back takes --run and --dry-run only: it puts everything back.")
    if bring_back:
        pruning.bring_back(find_home(), run, console, dry_run=dry_run)
        return
    choice = Choice(run, older_than_rounds, evaluations)
    pruning.archive_payloads(find_home(), choice, console, drop=drop, dry_run=dry_run, yes=yes)


@app.command()
def prune(
    dry_run: DryRun = False,
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose section retention holds for every run.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove what the rules of `retention` do not keep: old checkpoints, payloads, artifacts and logs."""
    from flows import pruning

    pruning.prune_root(find_home(), config, console, dry_run=dry_run, yes=yes)
