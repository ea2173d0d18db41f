"""The end of a command on the terminal: what came out, where things are, and what one would try next."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.opening import counted
from flows.terminal import unfolded
from reval_core.config import Config
from reval_core.visible import visible

if TYPE_CHECKING:
    from flows.generate import Generated
    from flows.rescore import Rescored
    from reval_core.evaluation.metrics import Estimate
    from tasks.compare import Compared
    from tasks.outcome import Outcome

METRIC_WIDTH, CELL_WIDTH = 22, 23
"""Columns of a table of metrics; with two cells it fits a terminal of 80."""


def show_outcome(done: Outcome, commands: Sequence[str], console: Console) -> None:
    """Print the outcome of a training run, and commands that one would try next."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if not done.executed:
        say(f"\nEverything of {done.run_id} was done already: no stage was executed.")
    say(f"\n{done.run_id} after {counted(done.rounds, 'round')}")
    if done.summary:
        say("")
        for line in metric_lines(("before", "after"), done.summary):
            say(line)
    facts = [
        ("trajectories stored", f"{done.trajectories}, each learned from {done.uses:.1f} times on average"),
        ("report", done.report),
        ("database", done.database),
        ("MLflow", done.mlflow),
        ("checkpoint", done.checkpoint),
        ("best checkpoint", done.best),
    ]
    say("")
    for name, value in facts:
        say(f"{name:<20}{'none' if value is None else value}")
    if commands:
        say("\nTry next:")
    for command in commands:
        say(f"  {command}")


def metric_lines(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """A table whose rows are ``benchmark metric`` with cells, None where there is nothing; grouped by benchmark.

    Nothing is wrapped or cut, however narrow the terminal is.
    """
    lines = [" " * METRIC_WIDTH + "".join(f"{name:>{CELL_WIDTH}}" for name in columns)]
    heading = None
    for label, *cells in rows:
        benchmark, _, metric = label.rpartition(" ")
        if benchmark != heading:
            heading = benchmark
            lines.append(benchmark)
        lines.append(f"  {metric:<{METRIC_WIDTH - 2}}" + "".join(f"{_cell(cell):>{CELL_WIDTH}}" for cell in cells))
    return lines


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def show_evaluations(
    rows: Iterable[tuple[str, str, float | None, float | None, float | None]], console: Console
) -> None:
    """Print (benchmark, metric, value, low, high) rows."""
    table = [
        (f"{benchmark} {metric}", None if value is None else f"{value:.3f}", between(low, high))
        for benchmark, metric, value, low, high in rows
    ]
    for line in metric_lines(("value", "95 % interval"), table):
        console.print(line, markup=False, soft_wrap=True)


def show_comparison(rows: Sequence[Compared], console: Console) -> None:
    """Print two policies side by side with the paired difference."""
    table = [
        (f"{row.benchmark} {row.metric}", f"{row.first:.3f}", f"{row.second:.3f}", _difference(row.difference))
        for row in rows
    ]
    for line in metric_lines(("first", "second", "second - first"), table):
        console.print(line, markup=False, soft_wrap=True)


def _difference(found: Estimate) -> str:
    return f"  {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def between(low: float | None, high: float | None) -> str:
    """The ends of an interval."""
    return "not estimated" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def show_rescored(found: Rescored, console: Console) -> None:
    """Print what another grading found."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    statuses = ", ".join(f"{count:,} {status}" for status, count in found.statuses.items())
    say(f"\n{counted(found.responses, 'response')}, {found.graded:,} graded now by {found.verifier_id}: {statuses}")
    if not found.changed:
        say("no verdict differs from the last one")
        return
    table = Table("before", "now", "responses", "for example: gold", "answer", "why", show_edge=False)
    for (before, now), count in found.changed.items():
        kind = [(gold, c) for gold, c in found.examples if (c.status_before, c.status) == (before, now)]
        for index, (gold, change) in enumerate(kind or [("", None)]):
            head = (before, now, f"{count:,}") if index == 0 else ("", "", "")
            answer = change.answer if change and change.answer is not None else ""
            cells = (*head, gold, answer, change.details if change else "")
            table.add_row(*(escape(visible(cell[:80])) for cell in cells))
    unfolded(console).print(table)
    say("Which they are: reval sql changed_verdicts")


def as_json(done: Outcome) -> str:
    """The outcome for programs."""
    told = {
        "run_id": done.run_id,
        "rounds": done.rounds,
        "policy_id": done.policy_id,
        "executed": list(done.executed),
        "summary": done.summary,
        "trajectories": done.trajectories,
        "report": done.report,
        "database": done.database,
        "checkpoint": done.checkpoint,
        "best": done.best,
    }
    return json.dumps(told, indent=2, ensure_ascii=False, default=str)


def next_commands(done: Outcome, settings: Config, config: Path, overrides: Sequence[str]) -> list[str]:
    """Commands that can be copied: how it learned, what it sampled, and a fork with one setting changed.

    Args:
        done: the outcome of the run.
        settings: its resolved configuration.
        config: the file that it was started with.
        overrides: the ``--set`` it was started with, which the fork needs as well.
    """
    reval = shlex.quote(_command())
    samples = (
        "select question, completion, status, times_used from run_trajectories "
        f"where run_id = '{done.run_id}' and iteration = 0 limit 5"
    )
    commands = [f"{reval} sql learning_curve", f'{reval} sql "{samples}"']
    if done.rounds:
        key, value = _another_value(settings)
        kept = [given for given in overrides if given.partition("=")[0].strip() != key]
        words = [str(config), "--from", f"{done.run_id}@{done.rounds // 2}"]
        words += [word for given in (*kept, f"{key}={value}") for word in ("--set", given)]
        commands.append(f"{reval} train {shlex.join(words)}")
    return commands


def _another_value(settings: Config) -> tuple[str, str]:
    """A setting that the run's objective reads, and half of its value."""
    from reval_core.learning.objectives import objective_for

    if "beta" in objective_for(settings.objective).reads:
        return "objective.beta", f"{settings.objective.beta / 2:.2g}"
    return "optimizer.lr", f"{settings.optimizer.lr / 2:.2g}"


def _command() -> str:
    """How this program was called, relative to where we are, so that a shown command can be copied."""
    called = Path(sys.argv[0]).absolute()
    if called.name != "reval":  # called from Python
        return "reval"
    if shutil.which("reval") == str(called):
        return "reval"
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)


def show_generated(done: Generated, console: Console) -> None:
    """Print what a policy's responses came to, and how to learn from them."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if not done.executed:
        say(f"\nEverything of {done.run_id} was done already: no stage was executed.")
    size = f"{counted(done.responses, 'response')} in {counted(done.rounds, 'round')}, {done.tokens:,} tokens"
    say(f"\n{done.policy_id}: {size}")
    say("verdicts: " + ", ".join(f"{count:,} {status}" for status, count in done.statuses.items()))
    say(f"\nTry next:\n  reval learn configs/quickstart.yaml --trajectories run:{done.run_id}")
