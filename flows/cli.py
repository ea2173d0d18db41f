"""The command line: ``reval train``, ``evaluate``, ``sql``, ``runs``, ``report`` and ``doctor``.

Prefect and MLflow take seconds to import, so a command imports its flow only when it is called.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from reval_core.config_files import load_config
from reval_core.errors import RevalError
from reval_core.home import Home, find_home
from tasks.services import configure, prefect_server

app = typer.Typer(
    name="reval",
    help="Off-policy, value-based RL for language models in which generation is paid for once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
INTERRUPTED = 130
"""Exit code of a program that was asked to end."""
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""UsageError of the click that typer uses, its own copy in newer versions."""

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file, for example configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key, as objective.beta=0.05; may be repeated.")
]


def main() -> None:
    """Entry point: errors that are the user's to mend are printed without a traceback."""
    _log_warnings()
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit, and 130 in the place of Ctrl-C
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        console.print("\n[yellow]Ended.[/] The same command goes on where it stopped.")
        sys.exit(INTERRUPTED)
    except RevalError as error:
        _forget_frames(error)
        Console(stderr=True, highlight=False).print(f"[red]Error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(2)
    if code:
        sys.exit(code)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the local variables that a traceback keeps alive, DuckDB's objects among them: the interpreter would
    report each of them as leaked behind our message."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _log_warnings() -> None:
    """Warnings on the terminal; everything else only in the attempt's log file."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False)
    handler.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])


def _home() -> Home:
    home = find_home()
    configure(home)
    return home


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show configuration, plan and cost; start nothing.")
    ] = False,
    show_prompt: Annotated[int, typer.Option("--show-prompt", help="Show so many rendered prompts and end.")] = 0,
    start_from: Annotated[
        str | None, typer.Option("--from", help="RUN@ITERATION: branch off another run, sharing its rows before it.")
    ] = None,
    force: Annotated[
        str | None, typer.Option("--force", help="generate@ITERATION: sample that round anew, in a fork.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train a policy; the same command goes on with, or does nothing for, a run that exists."""
    settings, home = load_config(config, overrides or ()), _home()
    from flows import planning

    fork = planning.fork(settings, home, start_from=start_from, force=force)
    if show_prompt:
        planning.show_prompts(settings, home, show_prompt, console)
        return
    if dry_run:
        planning.show_plan(settings, home, fork, console)
        return
    from flows.train import train as flow
    from tasks.progress import Progress

    with prefect_server(home), Progress(quiet=as_json) as progress:
        progress.say(f"root {home.root}")
        done = flow(settings, home, progress, fork)
    if as_json:
        console.print_json(json.dumps({"run_id": done.run_id, "rounds": done.rounds, "policy_id": done.policy_id,
                                       "executed": list(done.executed), "summary": done.summary}))  # fmt: skip
        return
    from flows.closing import show_outcome

    show_outcome(done, config, console)


@app.command()
def evaluate(
    policy: Annotated[str, typer.Argument(help="Policy id (or its first digits), model folder, or builtin:tiny.")],
    benchmarks: Annotated[str | None, typer.Option(help="Names or files, separated by commas.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", "-k", help="k of avg@k.")] = None,
    limit: Annotated[int | None, typer.Option(help="Problems of a benchmark at most.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration for prompt, sampling and model.")] = None,
    overrides: Overrides = None,
) -> None:
    """Evaluate a stored policy or a model folder on benchmarks; completions are stored and counted once."""
    home = _home()
    from flows.evaluate import evaluate_policy
    from tasks.progress import Progress

    with prefect_server(home), Progress() as progress:
        rows = evaluate_policy(
            home,
            progress,
            policy,
            benchmarks.split(",") if benchmarks else None,
            samples=samples,
            limit=limit,
            config=config,
            overrides=tuple(overrides or ()),
        )
    table = Table("benchmark", "metric", "value", "95 % interval")
    for benchmark, metric, value, low, high in rows:
        interval = "" if low is None or low == high else f"{low:.3f} to {high:.3f}"
        table.add_row(benchmark, metric, f"{value:.3f}", interval)
    console.print(table)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="SQL, or the name of a query in sql/queries.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON lines.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write to a Parquet file.")] = None,
    limit: Annotated[int, typer.Option(help="Rows shown on the terminal.")] = 40,
    parameters: Annotated[
        list[str] | None, typer.Option("--param", help="Value of a $name in the query, as run=RUN_ID; may be repeated.")
    ] = None,
) -> None:
    """Ask the store; without a query, list the named ones."""
    from flows import asking

    home = find_home()
    if query is None:
        asking.list_queries(console)
        return
    values = asking.parameters(parameters or [])
    asking.ask(home, query, values, console, csv=csv, as_json=as_json, parquet=parquet, limit=limit)


@app.command()
def runs() -> None:
    """List runs, forks under their parents."""
    from flows import asking

    asking.list_runs(find_home(), console)


@app.command()
def report(run: Annotated[str | None, typer.Argument(help="Run id; the newest by default.")] = None) -> None:
    """Print where a run's report is."""
    from flows import asking

    asking.show_report(find_home(), run, console)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Check this machine and the store; every failure names its cure."""
    from flows import doctor as checks

    found = checks.diagnose(find_home())
    if as_json:
        print(checks.to_json(found))
    else:
        checks.render(found, console)
    raise typer.Exit(checks.exit_code(found))
