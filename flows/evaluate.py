"""Evaluation of a stored policy, a model folder or a built-in model on benchmarks.

    reval evaluate POLICY --benchmarks aime24,math500

Completions are stored as trajectories of purpose ``evaluation``; asking twice samples once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.opening import counted, find_policy
from reval_core.config import Config
from reval_core.config_files import apply_override, load_config, parse_config
from reval_core.errors import ConfigError
from reval_core.home import Home
from reval_core.problems.benchmarks import BENCHMARKS
from reval_core.store import Store
from tasks.context import flow_run_id
from tasks.evaluate import evaluate
from tasks.open_run import open_run
from tasks.overlap import of_policy
from tasks.progress import Progress
from tasks.references import Evaluated
from tasks.run import Here

Row = tuple[str, str, float, float | None, float | None]


@flow(name="evaluate", flow_run_name="evaluate {policy_id}", validate_parameters=False)
def evaluate_flow(config: Config, home: Home, progress: Progress, policy_id: str | None) -> list[Evaluated]:
    """Evaluate one policy on the configured benchmarks.

    Args:
        config: model, prompt and evaluation settings.
        home: the root.
        progress: where live progress is shown.
        policy_id: a policy of the store; None for the configured base model itself.
    """
    with open_run(config, home, progress=progress, flow_run_id=flow_run_id(), training=False) as run:
        here = Here(run, _round_of(run.store, policy_id))
        for one in of_policy(run.store, policy_id, run.benchmarks) if policy_id else []:
            progress.say(f"not all of it is new to this policy: {one}")
        return [evaluate(here, policy_id or run.base.policy_id, name) for name in config.evaluation.benchmarks]


def _round_of(store: Store, policy_id: str | None) -> int:
    """The iteration that gave the policy; -1 for a base model, which had learned nothing."""
    found = store.query_live("SELECT iteration FROM policies WHERE policy_id = $policy", policy=policy_id).to_pylist()
    iteration = found[0]["iteration"] if found else None
    return -1 if iteration is None else int(iteration)


@dataclass(frozen=True)
class Asked:
    """What is asked for of an evaluation; the rest is as in the policy's own run."""

    samples: int | None = None
    """k of avg@k."""
    limit: int | None = None
    """Problems of each benchmark at most."""
    config: Path | None = None
    """Configuration to evaluate under in the place of that of the policy's run."""
    overrides: tuple[str, ...] = ()
    """``key=value`` settings on top."""


def evaluation_of(
    home: Home, policy: str, benchmarks: list[str] | None, asked: Asked, fields: dict[str, str] | None = None
) -> tuple[Config, str | None]:
    """The configuration of an evaluation, and the stored policy's id, None for a base model.

    Args:
        home: the root.
        policy: the first digits of a stored policy's id, a model folder, a hub id or a built-in model.
        benchmarks: names or problem files; None for those of the policy's own run.
        asked: what the options name.
        fields: our names (question, answer) to the columns of the problem files among `benchmarks`.
    """
    policy_id, tree = settings_of(home, policy, asked.config)
    name = policy_id.removeprefix("pol_")[:12] if policy_id else "base"
    tree["run"] = {**tree.get("run", {}), "name": f"evaluate-{name}", "iterations": 0}
    wanted = {"benchmarks": benchmarks, "samples_per_problem": asked.samples, "limit": asked.limit}
    given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    if asked.limit is not None:
        given["limits"] = {}  # those of the configuration would go before it
    tree["evaluation"] = {**tree.get("evaluation", {}), **given, "before": True}
    if fields is not None:
        tree["evaluation"]["files"] = {
            name: {"path": name, "fields": fields} for name in benchmarks or [] if name not in BENCHMARKS
        }
    if not tree["evaluation"].get("benchmarks"):
        raise ConfigError("Nothing to evaluate on: name --benchmarks, as arithmetic or aime24, or a problem file.")
    return parse_config(_overridden(tree, asked.overrides)), policy_id


def taken(home: Home, settings: Config, policy_id: str | None, asked: Asked) -> str:
    """What `evaluation_of` took from where: ``as in run a-1b2c: temperature 1, amc whole; as asked: 4 samples``."""
    own = settings.evaluation
    caps = [(name, own.limits.get(name, own.limit)) for name in own.benchmarks]
    subsets = [f"{name} {'whole' if cap is None else 'at most ' + counted(cap, 'problem')}" for name, cap in caps]
    by_set = {key.partition("=")[0].strip().removeprefix("evaluation.").split(".")[0] for key in asked.overrides}
    parts = [
        (f"{own.samples_per_problem} samples a problem", asked.samples is not None or "samples_per_problem" in by_set),
        (f"temperature {own.temperature:g}", "temperature" in by_set),
        (", ".join(subsets), asked.limit is not None or not by_set.isdisjoint({"limit", "limits"})),
    ]
    from_there = ", ".join(text for text, is_asked in parts if not is_asked)
    as_asked = ", ".join(text for text, is_asked in parts if is_asked)
    told = [(_source(home, policy_id, asked.config), from_there), ("as asked", as_asked)]
    return "; ".join(f"{source}: {text}" for source, text in told if text)


def _source(home: Home, policy_id: str | None, config: Path | None) -> str:
    if config is not None:
        return f"as in {config}"
    if policy_id is None:
        return "as by default"
    found = Store(home.database).query_live(
        "SELECT run_id FROM store.policies WHERE policy_id = $policy", policy=policy_id
    )
    return f"as in run {found.to_pylist()[0]['run_id']}"


def rows(found: Sequence[Evaluated]) -> list[Row]:
    """(benchmark, metric, value, low, high) of some evaluations."""
    return [(done.benchmark, metric, *interval) for done in found for metric, interval in done.metrics.items()]


def _overridden(tree: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    for override in overrides:
        apply_override(tree, override)
    return tree


def settings_of(home: Home, policy: str, config: Path | None) -> tuple[str | None, dict[str, Any]]:
    """(policy id or None for a base model, raw configuration tree: as given, else that of the policy's own run)."""
    given = load_config(config).model_dump(mode="json") if config else None
    if policy.startswith("builtin:") or Path(policy).is_dir() or policy.count("/") == 1:
        if given is None:
            given = {"problems": [{"path": "builtin:arithmetic/train"}]}
            if policy == "builtin:tiny":
                given |= {"prompt": {"template": "none"}, "rollouts": {"max_prompt_tokens": 16, "max_new_tokens": 28}}
        return None, {**given, "model": {**given.get("model", {}), "path": policy}}
    policy_id = find_policy(home, policy)
    found = Store(home.database).query_live(
        "SELECT config FROM store.policies LEFT JOIN store.runs USING (run_id) WHERE policy_id = $policy",
        policy=policy_id,
    )
    (row,) = found.to_pylist()
    if given is None and row["config"] is None:
        raise ConfigError(f"The store does not know the run of {policy}; give its configuration with --config.")
    return policy_id, given or json.loads(row["config"])
