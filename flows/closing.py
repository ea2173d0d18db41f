"""The end of a run on the terminal: a small table, where things are, and what one would try next."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.outcome import Outcome


def show_outcome(done: Outcome, config: Path, console: Console) -> None:
    """Print the outcome of a training run of that configuration file."""
    reval = _command()
    if not done.executed:
        console.print(f"\nEverything of {done.run_id} was done already: no stage was executed.")
    table = Table(title=f"{done.run_id} after {done.rounds} rounds", title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for label, before, after in done.summary:
        table.add_row(label, str(before), str(after))
    console.print()
    console.print(table)
    facts = [
        ("trajectories stored", f"{done.trajectories}, each learned from {done.uses:.1f} times on average"),
        ("report", done.report),
        ("database", done.database),
        ("MLflow", done.mlflow),
        ("checkpoint", done.checkpoint),
    ]
    console.print()
    for name, value in facts:
        console.print(f"{name:<20}{value}", markup=False, soft_wrap=True)
    console.print("\nTry next:")
    fork = f"--from {done.run_id}@{max(1, done.rounds // 2)} --set objective.beta=0.03"
    for command in (
        f"{reval} sql learning_curve",
        f'{reval} sql "select question, completion, status, times_used from trajectories where iteration = 0 limit 5"',
        f"{reval} train {config} {fork}",
    ):
        console.print(f"  {command}", markup=False, soft_wrap=True)


def _command() -> str:
    """How this program was called, relative to where we are, so that a shown command can be copied."""
    called = Path(sys.argv[0]).absolute()
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else called.name
