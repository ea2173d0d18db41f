"""``reval compare EXPERIMENT.yaml``: what is left of an experiment, and its tables on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.terminal import console, served
from reval_core.experiments import tables
from reval_core.experiments.experiment import Experiment, load_experiment
from reval_core.experiments.results import Results
from reval_core.home import Home, find_home
from tasks.progress import Progress
from tasks.services import configure


def compare(path: Path, workers: int, cells: list[str], taken_from: list[Path], *, plan: bool) -> None:
    """Do an experiment, or the part of it that is asked for.

    Args:
        path: the experiment's file.
        workers: cells at a time.
        cells: patterns of cells to compute alone.
        taken_from: folders with cells that were computed elsewhere.
        plan: only list the cells.
    """
    experiment, home = load_experiment(path), find_home()
    with Progress() as progress:
        progress.say(f"root {home.root}")
        configure(home)
        with progress.waiting("loading libraries"):
            from flows import experiment as flow
        if cells or taken_from or plan:
            _part(experiment, home, progress, workers, cells, taken_from, plan=plan)
        if cells or plan:
            return
        with served(home, progress):
            done = flow.run_experiment(experiment, home, progress, workers)
    for results in done:
        show(results, console)


def _part(
    experiment: Experiment,
    home: Home,
    progress: Progress,
    workers: int,
    cells: list[str],
    taken_from: list[Path],
    *,
    plan: bool,
) -> None:
    """What needs no server: cells alone, cells of others, the list."""
    from flows import experiment as flow
    from reval_core.store import Store
    from tasks.cell import finished

    Store(home.database).prepare()
    ours = flow.alone(experiment, home, progress)
    for folder in taken_from:
        copied = flow.take_in(ours, folder, home)
        progress.say(f"{len(copied)} cells copied from {folder}")
    for one in ours if plan else ():
        done = finished(Store(home.database), one.every_cell(), one.metric)
        progress.say(f"{one.name}: {len(done)} of {len(one.every_cell())} cells are done")
        for cell in one.every_cell():
            progress.say(f"  {'done' if cell.name in done else '-   '}  {cell.name}")
    if cells:
        wanted = {(one.name, cell.name): (one, cell) for pattern in cells for one, cell in flow.named(ours, pattern)}
        for one in ours:
            mine = [cell for name, cell in wanted.values() if name.name == one.name]
            if mine:
                flow.run_cells(one, mine, home, progress, workers)


def show(results: Results, console: Console) -> None:
    """Print the tables of an experiment."""
    experiment = results.experiment
    console.print(f"\n{experiment.name}: {results.metric} over {len(experiment.seeds)} seeds", style="bold")
    shown = [("final: mean of the last three evaluations", tables.final_table(results))]
    for threshold in experiment.thresholds:
        shown.append((f"to {threshold:g}: median over seeds [first, last]", tables.threshold_table(results, threshold)))
    for title, (head, rows) in shown:
        page = Table(title=escape(title), title_justify="left", title_style="", box=SIMPLE_HEAD)
        for name in head:
            page.add_column(escape(name))
        for row in rows:
            page.add_row(*map(escape, row))
        console.print(page)
