"""The commands that move responses and policies between stores and programs: ``reval export`` and ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reval_core.home import find_home
from tasks.progress import Progress

app = typer.Typer()


@app.command("export")
def export_(
    dest: Annotated[Path, typer.Argument(help="Folder to write; there must be none yet.")],
    layout: Annotated[
        str, typer.Option("--format", help="parquet (folders by run and iteration), or hf (a Hugging Face data set).")
    ] = "parquet",
    run: Annotated[
        str | None, typer.Option(help="Only this run's, as it used them; a run id or its first letters.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="training, evaluation, imported or all.")] = "training",
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the view trajectories (with --run: run_trajectories).")
    ] = None,
) -> None:
    """Write responses with tokens, verdicts and rewards to Parquet files."""
    from flows import exchange

    with Progress() as progress:
        exchange.export_to(find_home(), dest, layout, run, purpose, where, progress)


@app.command("export-policy")
def export_policy_(
    policy: Annotated[str, typer.Argument(help="A saved policy: its id or first digits, best:RUN, or latest.")],
    dest: Annotated[Path, typer.Argument(help="Folder to write; there must be none yet.")],
) -> None:
    """Write a saved policy as a plain model folder in Hugging Face layout; an adapter is merged into its base."""
    from flows import exporting

    with Progress() as progress:
        exporting.export_policy_to(find_home(), policy, dest, progress)


@app.command("import")
def import_(
    sources: Annotated[list[str], typer.Argument(help="Exports, or completions as .jsonl, .jsonl.gz or .parquet.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="For completions: policy id, model folder, builtin:tiny or builtin:bytes.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--fields", help="Columns of the completions, as question=prompt,completion=output.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose section prompt says how questions are rendered.")
    ] = None,
) -> None:
    """Take exported responses, or completions of other systems, into the store."""
    from flows import exchange, opening

    home, fields = find_home(), opening.fields(columns) or {}
    with Progress() as progress:
        progress.say(f"root {home.root}")
        whole = exchange.import_from(home, sources, tokenizer, fields, config, progress)
    raise typer.Exit(0 if whole else 1)
