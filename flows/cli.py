"""The command line: ``reval train``, ``learn``, ``sql``, ``runs``, ``diff``, ``report``, ``doctor``, and those beside.

Prefect and MLflow take seconds to import, so a command imports its flow only when it is called.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from flows.cli_browse import app as browse_commands
from flows.cli_exchange import app as exchange_commands
from flows.cli_judge import app as judge_commands
from flows.cli_prune import archive, prune
from flows.cli_serve import app as serve_commands
from flows.cli_stages import app as stage_commands
from flows.cli_store import app as store_commands
from flows.terminal import ConfigPath, Overrides, Parameters, console, served
from flows.tries import in_fresh_processes
from reval_core.config import Config
from reval_core.config_files import load_config
from reval_core.errors import ConfigError, RevalError
from reval_core.home import Home, find_home
from reval_core.visible import VisibleFormatter, visible
from tasks.progress import Progress, Terminal
from tasks.services import configure

if TYPE_CHECKING:
    from tasks.fork import Fork
    from tasks.outcome import Outcome

app = typer.Typer(
    name="reval",
    help="Off-policy, value-based RL for language models in which generation is paid for once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(store_commands, name="store")
store_commands.command()(archive)
app.command()(prune)
for commands in (stage_commands, judge_commands, exchange_commands, serve_commands, browse_commands):
    app.add_typer(commands)
GOES_ON = {"train", "learn", "generate", "rerun", "evaluate", "compare", "rescore", "import"}
"""Commands that, given again, do what is left."""
INTERRUPTED = 130
"""Exit code of a program that was asked to end."""
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
"""What the operating system refuses for a reason that the user can mend."""
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""UsageError of the click that typer uses, its own copy in newer versions."""


class Shown:
    """What the options before the command ask to see."""

    traceback = False
    """Of an error that is told in a line otherwise."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", envvar="REVAL_DEBUG", help="Show tracebacks of errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log, too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Off-policy, value-based RL for language models in which generation is paid for once."""
    Shown.traceback = debug
    Progress.shown = not quiet
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.INFO)


def main() -> None:
    """Entry point: errors that are the user's to mend are printed without a traceback."""
    _fill_closed_streams()
    _log_warnings()
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit, and 130 in the place of Ctrl-C
        sys.stdout.flush()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        goes_on = " The same command goes on where it stopped." if GOES_ON & set(sys.argv) else ""
        _errors().print(f"\n[yellow]Ended.[/]{goes_on}")  # standard output may be a file of results
        _leave(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, as in `reval sql ... | head`, has seen enough
        _leave(0)
    except RevalError as error:
        _tell(error, str(error))
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        where = error.filename or "A file"
        _tell(error, f"{where}: {error.strerror}. See that this user may write there, and that the disk has room.")
        sys.exit(1)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(2)
    if code:
        sys.exit(code)


def _tell(error: Exception, text: str) -> None:
    """Print an error in a line, behind its traceback where that is asked for."""
    if Shown.traceback:
        traceback.print_exception(error)
    _forget_frames(error)
    told = escape(visible(text, keep="\n\t"))
    _errors().print(f"[red]Error:[/] {told}", soft_wrap=True)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, emoji=False)


def _fill_closed_streams() -> None:
    """Let standard streams that the caller has closed, as by ``>&-``, lead nowhere: a file would take their place."""
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the local variables that a traceback keeps alive, DuckDB's objects among them: the interpreter would
    report each of them as leaked behind our message."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _leave(code: int) -> NoReturn:
    """End without the interpreter's own clearing up.

    Threads that the interruption found in the middle of something keep frames alive, and DuckDB's binding would report
    every function of its module as leaked behind our last line. All that must be closed has been closed by now.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError, ValueError):  # ValueError: closed already
            stream.flush()
    os._exit(code)


def _log_warnings() -> None:
    """Warnings on the terminal; everything else only in the attempt's log file."""
    handler = RichHandler(console=Terminal(stderr=True, emoji=False), show_path=False, show_time=False)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


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
    if as_json and (show_prompt or dry_run):
        raise ConfigError("--json is for the outcome of a run; --dry-run and --show-prompt have none. Leave it out.")
    settings, home, given = load_config(config, overrides or ()), find_home(), list(overrides or ())
    if show_prompt or dry_run:
        configure(home)
        from flows import planning

        fork = planning.fork(settings, home, start_from=start_from, force=force)
        if show_prompt:
            planning.show_prompts(settings, home, show_prompt, console)
        else:
            planning.show_plan(settings, home, fork, console)
        return
    in_fresh_processes(home, settings.limits)
    from flows import closing

    done = _train(settings, home, given, start_from, force, Progress(quiet=as_json))
    if as_json:
        print(closing.as_json(done))
    else:
        closing.show_outcome(done, closing.next_commands(done, settings, config, given), console)


def _train(
    settings: Config, home: Home, overrides: list[str], start_from: str | None, force: str | None, progress: Progress
) -> Outcome:
    """Say what is going to happen, refuse what can be refused at once, then load the libraries and train."""
    from flows import opening

    with progress:
        progress.say(f"root {home.root}")
        if start_from is None and force is None:
            progress.say(opening.standing(settings, home))
        else:
            progress.say(f"a fork, from {start_from or force}")
        opening.check_problems(settings)
        configure(home)
        if start_from is None and force is None and opening.is_learned(settings, home):
            with progress.waiting("loading libraries"):
                from flows import planning
                from flows.train import train as flow
            if planning.nothing_to_do(settings, home):  # so there is nothing to show in Prefect, which takes seconds
                return flow.fn(settings, home, progress)

        def load() -> Fork | None:
            with progress.waiting("loading libraries"):
                import flows.train  # noqa: F401
                from tasks.preflight import check_settings
            check_settings(settings)
            if start_from is None and force is None:
                return None
            from flows import planning

            fork = planning.fork(settings, home, start_from=start_from, force=force)
            for line in opening.about_fork(settings, home, fork, overrides):
                progress.say(line)
            return fork

        with served(home, progress, meanwhile=load) as fork:
            from flows.train import train as flow

            return flow(settings, home, progress, fork)


@app.command()
def learn(
    config: ConfigPath,
    trajectories: Annotated[
        str | None,
        typer.Option(
            "--trajectories", help="run:RUN, window:RUN, a named query, a .sql file or SQL that gives trajectory_id."
        ),
    ] = None,
    parameters: Parameters = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Learn from stored trajectories alone: updates, and no generation."""
    settings, home = load_config(config, overrides or ()), find_home()
    in_fresh_processes(home, settings.limits)
    from flows import choosing, closing

    if trajectories is not None:
        settings = choosing.with_selection(settings, home, trajectories, parameters or [])
    with Progress(quiet=as_json) as progress:
        progress.say(f"root {home.root}")
        configure(home)

        def load() -> None:
            with progress.waiting("loading libraries"):
                import flows.learn  # noqa: F401

        with served(home, progress, meanwhile=load):
            from flows.learn import learn_stored

            done = learn_stored(settings, home, progress)
    if as_json:
        print(closing.as_json(done))
    else:
        closing.show_outcome(done, (), console)


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="SQL, the name of a query, a .sql file, or - for standard input.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON lines.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write to a Parquet file.")] = None,
    expanded: Annotated[bool, typer.Option("--expanded", "-x", help="Show one column a line, texts whole.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows shown on the terminal.")] = 40,
    parameters: Parameters = None,
    show: Annotated[bool, typer.Option("--show", help="Print the text of a named query; ask nothing.")] = False,
) -> None:
    """Ask the store; without a query, open a prompt, or list the named queries where there is no terminal."""
    from flows import asking, given
    from reval_core.store.sqlfiles import query_text

    home = find_home()
    if query is None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from flows.prompt import open_prompt

            open_prompt(home, console, limit)
        else:
            asking.list_queries(console)
        return
    if show:
        print(query_text(query.strip()).strip())
        return
    query = given.text_of(query)
    values = asking.parameters(home, query, parameters or [])
    asking.ask(home, query, values, console, csv=csv, as_json=as_json, parquet=parquet, expanded=expanded, limit=limit)


@app.command()
def runs() -> None:
    """List runs, forks under their parents."""
    from flows import listing

    listing.list_runs(find_home(), console)


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="Run id, or its first letters.")],
    other: Annotated[str, typer.Argument(help="Another run.")],
) -> None:
    """Show two runs side by side: settings that differ, and what came out."""
    from flows import listing

    listing.diff_runs(find_home(), one, other, console)


@app.command()
def report(
    run: Annotated[
        str | None, typer.Argument(help="Run id, or its first letters; by default the newest run with a report.")
    ] = None,
    table1: Annotated[
        bool, typer.Option("--table1", help="The paper's Table 1 with the policies of this store beside it.")
    ] = False,
) -> None:
    """Print where a run's report is; or lay our policies beside the paper's Table 1."""
    from flows import asking

    if not table1:
        asking.show_report(find_home(), run, console)
        return
    if run is not None:
        raise ConfigError("--table1 is about all runs of the store: leave the run out.")
    from flows import table1 as paper

    home = find_home()
    rows, page = paper.write_table1(home)
    paper.show(rows, asking.store_of(home), console)
    console.print(f"page  {page}", markup=False, soft_wrap=True)


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
