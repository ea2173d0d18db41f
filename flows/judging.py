"""The flows that judge, as a server offers them: rescore, evaluate, compare, experiment. See flows/deployed.py."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from flows import choosing, closing
from flows.cli_experiment import show
from flows.evaluate import Asked, evaluate_flow, evaluation_of, rows, taken
from flows.experiment import run_experiment
from flows.offered import Answer, ConfigFile, Count, Words, at_work, plain, tell
from flows.opening import LATEST
from flows.rescore import rescore as rescore_flow
from flows.starting import policy_named, resolved
from reval_core.config_files import parse_config
from reval_core.experiments.experiment import load_experiment
from reval_core.experiments.tables import as_json
from tasks.compare import compare as paired
from tasks.compare_page import write_comparison
from tasks.context import flow_run_id


@flow(name="rescore", flow_run_name="rescore {trajectories}", validate_parameters=True)
def rescore(
    trajectories: Words,
    parameters: dict[str, str] | None = None,
    config: ConfigFile | None = None,
    overrides: list[str] | None = None,
) -> Any:
    """Grade stored responses again, by another verifier or after gold answers were mended; old verdicts stay.

    Args:
        trajectories: run:RUN, window:RUN, a named query, or SQL with a column trajectory_id.
        parameters: Values of $name in the query.
        config: Configuration file whose reward grades. Empty: that of the run whose responses are chosen.
        overrides: Settings to change, as reward.extraction=lenient.
    """
    with at_work() as (home, progress):
        what = choosing.whole_names(home, trajectories)
        reward = choosing.reward_of(home, what, Path(config) if config else None, overrides or [])
        found = rescore_flow.fn(reward, home, progress, what, parameters or {})
        tell(progress, f"rescored {what}", lambda console: closing.show_rescored(found, console))
        changed = {f"{before} to {now}": count for (before, now), count in found.changed.items()}
        return plain(found) | {"changed": changed}


@flow(name="evaluate", flow_run_name="evaluate {policy}", validate_parameters=True)
def evaluate(
    policy: Words = LATEST,
    benchmarks: list[str] | None = None,
    samples: Count | None = None,
    limit: Count | None = None,
    config: ConfigFile | None = None,
    overrides: list[str] | None = None,
) -> Any:
    """Evaluate a checkpoint on benchmarks; what was evaluated before is not sampled again.

    Args:
        policy: latest (the newest saved one), best (needs config), a policy id or its first digits, a model folder.
        benchmarks: Names or problem files. Empty: those of the policy's own run.
        samples: k of avg@k. Empty: as configured.
        limit: Problems of a benchmark at most. Empty: as configured.
        config: Configuration file for prompt, sampling and model. Empty: that of the policy's own run.
        overrides: Settings to change, as lines key.path=value.
    """
    wished = _wished(samples, limit, config, overrides)
    with at_work() as (home, progress):

        def mean() -> Answer:
            chosen = policy_named(home, policy, config)
            wanted, policy_id = evaluation_of(home, chosen, benchmarks or None, wished)
            return {"policy_id": policy_id, "config": wanted.model_dump(mode="json")}

        asked = {"policy": policy, "benchmarks": benchmarks, "samples": samples, "limit": limit, "config": config}
        start = resolved(home, flow_run_id(), "evaluate", asked, mean)
        settings = parse_config(start["config"])
        progress.say(taken(home, settings, start["policy_id"], wished))
        done = evaluate_flow.fn(settings, home, progress, start["policy_id"])
        told, name = rows(done), start["policy_id"] or policy
        tell(progress, f"evaluated {name}", lambda console: closing.show_evaluations(told, console))
        return {"policy_id": start["policy_id"], "metrics": [list(row) for row in told]}


@flow(name="compare", flow_run_name="compare {first} {second}", validate_parameters=True)
def compare(
    first: Words,
    second: Words = LATEST,
    benchmarks: list[str] | None = None,
    samples: Count | None = None,
    limit: Count | None = None,
    config: ConfigFile | None = None,
    overrides: list[str] | None = None,
) -> Any:
    """Evaluate two policies under the same noise; gives the paired difference, second minus first, with its interval.

    Args:
        first: A policy id or its first digits, a model folder, builtin:tiny, latest, or best (needs config).
        second: The same.
        benchmarks: Names or problem files. Empty: those of the first policy's own run.
        samples: k of avg@k. Empty: as configured.
        limit: Problems of a benchmark at most. Empty: as configured.
        config: Configuration file for prompt, sampling and model. Empty: that of each policy's own run.
        overrides: Settings to change, as lines key.path=value.
    """
    wished = _wished(samples, limit, config, overrides)
    with at_work() as (home, progress):

        def mean() -> Answer:
            names, sides = benchmarks or None, []
            for word in (first, second):
                chosen = policy_named(home, word, config)
                wanted, policy_id = evaluation_of(home, chosen, names, wished)
                names = names or list(wanted.evaluation.benchmarks)
                sides.append({"policy_id": policy_id, "config": wanted.model_dump(mode="json")})
            return {"sides": sides}

        start = resolved(home, flow_run_id(), "compare", {"first": first, "second": second}, mean)
        sides = []
        for side in start["sides"]:
            settings = parse_config(side["config"])
            progress.say(taken(home, settings, side["policy_id"], wished))
            sides.append(evaluate_flow.fn(settings, home, progress, side["policy_id"]))
        found = paired(home, *sides)
        page = write_comparison(home, sides[0], sides[1], found)
        names = [side["policy_id"] or word for side, word in zip(start["sides"], (first, second), strict=True)]
        tell(progress, f"first {names[0]}, second {names[1]}", lambda console: closing.show_comparison(found, console))
        return {"differences": [plain(row) for row in found], "page": str(page)}


@flow(name="experiment", flow_run_name="experiment {file}", validate_parameters=True)
def experiment(file: ConfigFile = "configs/experiments/tiny.yaml", workers: Count = 1) -> Any:
    """Compute what is missing of an experiment, and compare its arms over seeds.

    Args:
        file: The experiment's file, on the machine that runs it.
        workers: Cells at a time, each in a process with one thread.
    """
    with at_work() as (home, progress):
        done = run_experiment.fn(load_experiment(file), home, progress, workers)
        for results in done:
            tell(progress, f"compared {results.experiment.name}", partial(show, results))
        return {"experiments": [json.loads(as_json(results)) for results in done]}


def _wished(samples: int | None, limit: int | None, config: str | None, overrides: list[str] | None) -> Asked:
    return Asked(samples, limit, Path(config) if config else None, tuple(overrides or ()))
