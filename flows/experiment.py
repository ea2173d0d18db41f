"""An experiment: its cells computed, merged into the store, and compared.

    reval compare configs/experiments/tiny.yaml --workers 2

    grids on their tuning seeds -> the best point of each arm -> the reported seeds -> tables and plots

A cell is a run in a root of its own, in a process of its own with one thread (`flows/cell.py`), so that cells can be
computed anywhere: what was computed on another machine is copied in by `take_in` and found there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from fnmatch import fnmatchcase
from pathlib import Path

from prefect import flow

from flows.cell import CONFIG
from flows.evaluate import evaluate_flow
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError, RevalError
from reval_core.experiments.experiment import Cell, Experiment, Point
from reval_core.experiments.results import Results, choose, compared
from reval_core.home import Home
from reval_core.policies.base import base_policy
from reval_core.store import Store, curves
from tasks.cell import Computed, cell_root, compute, finished
from tasks.compared import write_results
from tasks.preflight import check_settings
from tasks.progress import Progress

ERROR_LOG = "cell.log"
SHOWN = 2000
"""Characters of a failed cell's errors that are shown."""


@flow(name="experiment", flow_run_name="experiment {experiment.name}", validate_parameters=False)
def run_experiment(experiment: Experiment, home: Home, progress: Progress, workers: int = 1) -> list[Results]:
    """Compute what is missing of an experiment, compare the arms, write tables and plots.

    Args:
        experiment: what is compared.
        home: the root; everything goes to its folder ``experiments``.
        progress: where live progress is shown.
        workers: cells that are computed at the same time, each with one thread.

    Raises:
        RevalError: a cell failed; the others were computed, and the same call goes on with it.
    """
    Store(home.database).prepare()
    return [_compared(one, home, progress, workers) for one in alone(experiment, home, progress)]


def alone(experiment: Experiment, home: Home, progress: Progress) -> list[Experiment]:
    """The experiment itself, or the same on each of its problems.

    Which problem has a pass rate is told by the base model's responses to the candidates, which are an evaluation in
    the store; among equally near ones the first by its id.
    """
    if not experiment.problems:
        return [experiment]
    chosen, arm = experiment.candidates, next(iter(experiment.arms))
    first = experiment.on_problem(next(iter(experiment.problems)), "")
    tree = first.cell(arm, experiment.arms[arm].points()[0], experiment.seeds[0]).config.model_dump(mode="json")
    source = {"path": chosen.path}
    tree["run"] = {"name": f"{experiment.name}-candidates", "iterations": 0}
    tree["problems"] = [source]
    tree["evaluation"] |= {
        "benchmarks": ["candidates"],
        "files": {"candidates": source},
        "samples_per_problem": chosen.samples,
        "limit": chosen.limit,
    }
    progress.say(f"the base model's pass rates on {chosen.limit} problems, {chosen.samples} responses each")
    (done,) = evaluate_flow.fn(parse_config(tree), home, progress, None)
    with Store(home.database).read() as connection:
        rates = curves.pass_rates(connection, done.evaluation_id)
    found = []
    for level, wanted in experiment.problems.items():
        question = min(rates, key=lambda name: abs(rates[name] - wanted.base_pass_rate))
        progress.say(f"  {level}: {question} with pass rate {rates[question]:.2f}")
        found.append(experiment.on_problem(level, question, rates[question]))
    return found


def _compared(experiment: Experiment, home: Home, progress: Progress, workers: int) -> Results:
    """The two waves of one experiment, and what came out."""
    points: dict[str, Point] = {name: arm.points()[0] for name, arm in experiment.arms.items()}
    tuned = experiment.tuned()
    first = experiment.tuning_cells()
    first += [cell for name, point in points.items() if name not in tuned for cell in experiment.cells(name, point)]
    done = run_cells(experiment, first, home, progress, workers)
    points |= {name: choose(experiment, name, _curves(done)) for name in tuned}
    second = [cell for name in tuned for cell in experiment.cells(name, points[name])]
    done |= run_cells(experiment, second, home, progress, workers)
    bases = {one.base_policy_id for one in done.values()}
    if len(bases) > 1:
        raise ConfigError(
            f"The cells of {experiment.name} start from {len(bases)} base models: {', '.join(sorted(bases))}. Cells "
            "that another version of torch computed cannot be compared with these; compute them anew."
        )
    results = compared(experiment, points, _curves(done))
    folder = write_results(home, results)
    progress.say(f"{experiment.name}: tables and plots in {folder}")
    return results


def _curves(done: dict[str, Computed]) -> dict[str, list[dict[str, float]]]:
    return {name: one.curve for name, one in done.items()}


def run_cells(
    experiment: Experiment, cells: Sequence[Cell], home: Home, progress: Progress, workers: int
) -> dict[str, Computed]:
    """Name to each computed cell; those that are there are found, the rest runs, so many at a time.

    Raises:
        RevalError: at least one cell failed; all others were computed first.
    """
    done = finished(Store(home.database), list(cells), experiment.metric)
    missing = [cell for cell in cells if cell.name not in done]
    if cells:
        progress.say(f"{experiment.name}: {len(done)} of {len(cells)} cells are there")
    if not missing:
        return done
    for cell in missing:
        check_settings(cell.config)
        prepare(experiment, cell, home, progress)
    processes = Processes(progress, sum(cell.config.run.iterations for cell in missing))
    failed = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = {
            pool.submit(
                copy_context().run, compute, home, experiment.name, cell, experiment.metric, processes.run
            ): cell
            for cell in missing
        }
        try:
            for future in as_completed(waiting):
                cell = waiting[future]
                try:
                    done[cell.name] = future.result()
                except RevalError as error:
                    failed.append(f"{cell.name}: {error}")
                    progress.say(f"  {cell.name} failed")
                    continue
                last = done[cell.name].curve[-1]
                progress.say(
                    f"  {cell.name}: {experiment.metric.name} {last['value']:.3f} after {last['rounds']} rounds "
                    f"({len(done)} of {len(cells)} cells)"
                )
        except BaseException:
            processes.stop()
            pool.shutdown(cancel_futures=True)
            raise
    if failed:
        raise RevalError(
            f"{len(failed)} of {len(cells)} cells of {experiment.name} failed; the same command goes on with them.\n"
            + "\n".join(failed)
        )
    return done


def prepare(experiment: Experiment, cell: Cell, home: Home, progress: Progress) -> None:
    """The cell's root: its configuration, and the base models of ours, made if they are not there."""
    base_policy(cell.config.model, home.models, lambda done, total: progress.step("base model", done, total))
    root = cell_root(home, experiment.name, cell)
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG).write_text(cell.config.to_yaml(), encoding="utf-8")
    home.models.mkdir(exist_ok=True)
    link = root / Home(root).models.name
    if not (link.exists() or link.is_symlink()):
        link.symlink_to(os.path.relpath(home.models, root), target_is_directory=True)


class Processes:
    """Runs cells, each in a process of its own, and counts the rounds of all of them."""

    def __init__(self, progress: Progress, rounds: int) -> None:
        self._progress, self._rounds, self._done = progress, rounds, 0
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, cell: Cell, root: Path) -> None:
        """Bring a cell to its end.

        Raises:
            RevalError: its process failed.
        """
        paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cell.config.model.threads or 1))
        before = 0
        with open(root / ERROR_LOG, "w", encoding="utf-8") as errors:
            with self._lock:
                if self._stopped:
                    raise RevalError("not begun")
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "flows.cell", str(root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
                )
                self._processes.add(process)
            assert process.stdout is not None
            assert process.stdin is not None
            for line in process.stdout:
                if line.startswith("round "):
                    now = int(line.split()[1])
                    self._add(now - before)
                    before = now
            code = process.wait()
            process.stdin.close()
        with self._lock:
            self._processes.discard(process)
        if code:
            said = (root / ERROR_LOG).read_text(encoding="utf-8").strip()[-SHOWN:]
            raise RevalError(f"ended with exit code {code}. {said or 'It said nothing.'} ({root / ERROR_LOG})")
        self._add(cell.config.run.iterations - before)

    def _add(self, rounds: int) -> None:
        with self._lock:
            self._done += rounds
            if rounds:
                self._progress.step("rounds of the cells", self._done, self._rounds)

    def stop(self) -> None:
        """Ask every cell to end: its lifeline is cut."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.close()


def named(experiments: Sequence[Experiment], pattern: str) -> list[tuple[Experiment, Cell]]:
    """The cells whose name, or EXPERIMENT/NAME, matches a pattern such as grpo-*.s0.

    Raises:
        ConfigError: none does.
    """
    known = [(experiment, cell) for experiment in experiments for cell in experiment.every_cell()]
    found = [
        (experiment, cell)
        for experiment, cell in known
        if fnmatchcase(cell.name, pattern) or fnmatchcase(f"{experiment.name}/{cell.name}", pattern)
    ]
    if not found:
        names = ", ".join(cell.name for _, cell in known[:6])
        raise ConfigError(f"No cell is called {pattern!r}. There are {len(known)}, the first: {names}.")
    return found


def take_in(experiments: Sequence[Experiment], folder: Path, home: Home) -> list[str]:
    """Copy the roots of cells that another machine computed; those that are here already stay as they are.

    Args:
        experiments: whose cells are looked for.
        folder: a root (REVAL_HOME) of the other machine, its folder experiments, or a part of it.
        home: our root.

    Returns:
        Names of the cells that were copied.

    Raises:
        ConfigError: no cell of these experiments lies there.
    """
    known = {
        cell_root(home, experiment.name, cell): cell for experiment in experiments for cell in experiment.every_cell()
    }
    there = {path.parent.name: path.parent for path in sorted(folder.rglob(Home(Path()).database.name))}
    wanted = {root: there[root.name] for root in known if root.name in there}
    if not wanted:
        raise ConfigError(f"In {folder} lies no cell of {', '.join(one.name for one in experiments)}.")
    copied = []
    for root, found in wanted.items():
        if Home(root).database.exists():
            continue
        aside = root.with_name(f"{root.name}.unfinished")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(found, aside, symlinks=True)
        aside.rename(root)
        copied.append(known[root].name)
    return copied
