"""The commands that judge: ``reval grade``, ``evaluate``, ``compare`` and ``rescore``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import Overrides, Parameters, console, served
from reval_core.errors import ConfigError
from reval_core.home import find_home
from tasks.progress import Progress
from tasks.services import configure

if TYPE_CHECKING:
    from tasks.references import Evaluated

app = typer.Typer()
CHANGED_BY = "Change it by -k, --limit, --set evaluation.temperature=T, or --config FILE."
"""How an evaluation is given other settings than it takes."""

PolicyName = Annotated[
    str, typer.Argument(help="Policy id (or its first digits), best:RUN, latest, model folder, or builtin:tiny.")
]
Benchmarks = Annotated[str | None, typer.Option(help="Names or files, separated by commas.")]
Columns = Annotated[
    str | None, typer.Option("--fields", help="Columns of these files, as question=prompt,answer=solution.")
]
Samples = Annotated[int | None, typer.Option("--samples", "-k", help="k of avg@k; else as in the policy's own run.")]
Limit = Annotated[int | None, typer.Option(help="Problems of a benchmark at most; else as in the policy's own run.")]
EvaluationConfig = Annotated[
    Path | None, typer.Option(help="Configuration for prompt, sampling and model; else that of the policy's own run.")
]


def _not_an_option(value: str) -> str:
    if re.fullmatch(r"--[a-z][a-z-]+(=.*)?", value):
        raise typer.BadParameter(f"No such option: {value}")
    return value


@app.command(context_settings={"ignore_unknown_options": True})  # -1/2 is an answer
def grade(
    gold: Annotated[str, typer.Argument(help="The right answer, in LaTeX or text.", callback=_not_an_option)],
    answer: Annotated[
        str, typer.Argument(help="The answer to judge; - reads standard input.", callback=_not_an_option)
    ],
    completion: Annotated[
        bool, typer.Option("--completion", help="ANSWER is a whole completion: find the answer in it first.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the path through the tiers.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration whose reward section judges.")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Judge one answer as a run would; exit code 0 for a right one, 1 for any other."""
    from flows import choosing
    from flows.grade import grade as judged
    from flows.grade import show

    reward = choosing.reward_of(find_home(), "", config, overrides or ())
    text = sys.stdin.read() if answer == "-" else answer
    steps, verdict = judged(gold, text, reward, completion=completion)
    show(steps if explain else [], verdict, console, as_json=as_json)
    raise typer.Exit(0 if verdict.correct else 1)


@app.command()
def evaluate(
    policy: PolicyName,
    benchmarks: Benchmarks = None,
    columns: Columns = None,
    samples: Samples = None,
    limit: Limit = None,
    config: EvaluationConfig = None,
    overrides: Overrides = None,
) -> None:
    """Evaluate a stored policy or a model folder on benchmarks; completions are stored and counted once."""
    from flows import closing

    (found,) = _evaluated([policy], benchmarks, columns, samples, limit, config, overrides)
    from flows.evaluate import rows

    closing.show_evaluations(rows(found), console)


@app.command()
def benchmarks() -> None:
    """List the registered benchmarks: size, licence, how they are graded, and whether their files are here."""
    from flows.benchmarks import list_benchmarks

    list_benchmarks(console)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="As of evaluate; or an experiment: configs/experiments/NAME.yaml.")],
    second: Annotated[str | None, typer.Argument(help="The other policy; none beside an experiment.")] = None,
    benchmarks: Benchmarks = None,
    columns: Columns = None,
    samples: Samples = None,
    limit: Limit = None,
    config: EvaluationConfig = None,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="Cells of an experiment at a time, one thread each.")] = 1,
    cells: Annotated[
        list[str] | None, typer.Option("--cell", help="Compute these cells alone, as grpo-*.s0; may be repeated.")
    ] = None,
    taken_from: Annotated[
        list[Path] | None, typer.Option("--take-in", help="Folder with cells of another machine; may be repeated.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="List an experiment's cells; compute none.")] = False,
) -> None:
    """Evaluate two policies and show the paired difference, second minus first; or do a whole experiment."""
    if second is None:
        from flows import cli_experiment

        if not first.endswith((".yaml", ".yml")):
            raise ConfigError(f"{first} is compared with what? Name a second policy, or an experiment's .yaml file.")
        if any((benchmarks, columns, samples, limit, config, overrides)):
            raise ConfigError(
                "An experiment takes --workers, --cell, --take-in and --plan; the rest stands in its file."
            )
        cli_experiment.compare(Path(first), workers, cells or [], taken_from or [], plan=plan)
        return
    if cells or taken_from or plan:
        raise ConfigError("--cell, --take-in and --plan are for an experiment: name its .yaml file alone.")
    from flows import closing

    sides = _evaluated([first, second], benchmarks, columns, samples, limit, config, overrides)
    from tasks.compare import compare as paired
    from tasks.compare_page import write_comparison

    found = paired(find_home(), *sides)
    closing.show_comparison(found, console)
    page = write_comparison(find_home(), sides[0], sides[1], found)
    console.print(f"\npage  {page}", markup=False, soft_wrap=True)


def _evaluated(
    policies: list[str],
    benchmarks: str | None,
    columns: str | None,
    samples: int | None,
    limit: int | None,
    config: Path | None,
    overrides: list[str] | None,
) -> list[list[Evaluated]]:
    """Evaluations of each policy on the same benchmarks."""
    from flows import opening

    home, results = find_home(), []
    names = [name.strip() for name in benchmarks.split(",")] if benchmarks else None
    fields = opening.fields(columns)
    with Progress() as progress:
        progress.say(f"root {home.root}")
        found = [opening.find_policy(home, policy) for policy in policies]
        for policy in found:
            files = opening.benchmark_files(home, policy, config, overrides or ())
            opening.check_benchmarks(names or [], limit, fields, files)
        configure(home)
        with progress.waiting("loading libraries"):
            from flows.evaluate import Asked, evaluate_flow, evaluation_of, taken
        asked = Asked(samples, limit, config, tuple(overrides or ()))
        with served(home, progress):
            for policy in found:
                progress.say(f"evaluating {policy}")
                settings, policy_id = evaluation_of(home, policy, names, asked, fields)
                progress.say(f"{taken(home, settings, policy_id, asked)}. {CHANGED_BY}")
                done = evaluate_flow(settings, home, progress, policy_id)
                names = names or [one.benchmark for one in done]
                results.append(done)
    return results


@app.command()
def rescore(
    what: Annotated[str, typer.Argument(help="run:RUN, window:RUN, a named query, or SQL that gives trajectory_id.")],
    parameters: Parameters = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose reward grades; by default that of the run.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Grade stored responses again, without sampling; old verdicts stay."""
    from flows import asking, choosing, closing

    home = find_home()
    what = choosing.whole_names(home, what)
    reward = choosing.reward_of(home, what, config, overrides or ())
    values = asking.parameters(home, what, parameters or []) if parameters else {}
    with Progress() as progress:
        progress.say(f"root {home.root}")
        configure(home)
        with progress.waiting("loading libraries"):
            from flows.rescore import rescore as flow
        with served(home, progress):
            found = flow(reward, home, progress, what, values)
    closing.show_rescored(found, console)
