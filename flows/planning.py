"""What a training run would do, before it does it: forks, rendered prompts, the plan of stages and its cost."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from reval_core.config import Config, flatten
from reval_core.config_files import parse_config
from reval_core.environment import choose_device
from reval_core.errors import ConfigError, PolicyError, StoreError
from reval_core.home import Home, expand
from reval_core.learning.objectives import objective_for
from reval_core.policies.base import base_policy
from reval_core.policies.folder import load_tokenizer
from reval_core.problems import PromptRenderer
from reval_core.store import Store, runs, stages
from reval_core.store.runs import RunRecord
from tasks.open_run import Fork, check_settings, read_problems, run_id_of

BYTES_PER_MASTER = 16
"""float32 weight, gradient and two Adam moments of one parameter."""
TEXT_BYTES_PER_TOKEN = 4
"""Text of a token beside its 4-byte id, before DuckDB's compression."""


def fork(config: Config, home: Home, *, start_from: str | None, force: str | None) -> Fork | None:
    """Where the run branches off, from ``--from RUN@ITERATION`` and ``--force generate@ITERATION``.

    Raises:
        ConfigError: the place is not written as expected, lies outside the parent, or the fork would change nothing.
    """
    if start_from is None and force is None:
        return None
    forced_at = _forced_iteration(force)
    parent_id, iteration = _place(start_from) if start_from else (run_id_of(config), forced_at)
    if forced_at is not None and iteration != forced_at:
        raise ConfigError(
            f"--from begins at round {iteration}, --force asks for round {forced_at}. Name the same round."
        )
    assert iteration is not None
    store = Store(home.database)
    with store.read() as connection:
        parent = runs.find(connection, parent_id)
        done = _rounds_done(stages.history(connection, parent_id)) if parent else 0
    if parent is None:
        raise StoreError(f"There is no run {parent_id}. `reval runs` lists what there is.")
    if iteration > done:
        raise ConfigError(f"Run {parent_id} has {done} rounds; a fork begins at round 0 to {done}, not at {iteration}.")
    changed = differences(parent, config)
    if not changed and forced_at is None:
        raise ConfigError(
            f"Nothing differs from run {parent_id}, so there is nothing to fork. Change a setting with --set, sample a "
            "round anew with --force generate@ROUND, or raise run.iterations to go on."
        )
    moved = [line for line in changed if line.startswith(("model.", "prompt.", "problems."))]
    if moved:
        raise ConfigError(
            f"A fork keeps its parent's model, prompt and problems, this one changes {moved[0]}. Start a run instead."
        )
    forced = {slot: count for slot, count in parent.forced.items() if int(slot.rpartition("@")[2]) >= iteration}
    if forced_at is not None:
        forced[f"generate@{forced_at}"] = forced.get(f"generate@{forced_at}", 0) + 1
    return Fork(parent_id, iteration, forced)


def differences(parent: RunRecord, config: Config) -> list[str]:
    """``objective.beta: 0.01 -> 0.05`` for each setting that decides results and differs from the parent's."""
    before = flatten(parse_config(dict(parent.config)).identity())
    after = flatten(config.identity())
    keys = sorted(set(before) | set(after))
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _forced_iteration(force: str | None) -> int | None:
    if force is None:
        return None
    stage, _, iteration = force.partition("@")
    if stage != "generate" or not iteration.isdigit():
        raise ConfigError(
            f"--force {force!r}: write generate@ROUND. The other stages are functions of what is stored: done again "
            "they give the same, and a changed setting or verifier is a fork by --from."
        )
    return int(iteration)


def _place(text: str) -> tuple[str, int]:
    run_id, _, iteration = text.rpartition("@")
    if not run_id or not iteration.isdigit():
        raise ConfigError(f"--from {text!r}: write RUN@ROUND, for example quickstart-1a2b3c4d@10.")
    return run_id, int(iteration)


def _rounds_done(history: dict[tuple[int, str, str], dict[str, Any]]) -> int:
    done = 0
    while (done, "learn", "") in history:
        done += 1
    return done


def show_prompts(config: Config, home: Home, count: int, console: Console) -> None:
    """Text, token ids and stop set of the first prompts."""
    base = base_policy(config.model, home.models)
    tokenizer = load_tokenizer(base.folder)
    renderer = PromptRenderer(tokenizer, config.prompt)
    stop = {token: tokenizer.convert_ids_to_tokens(token) for token in renderer.stop_ids}
    console.print(
        f"responses end with: {', '.join(f'{text!r} ({token})' for token, text in stop.items())}", markup=False
    )
    for problem in read_problems(config)[0][:count]:
        prompt = renderer.render(problem)
        console.rule(f"{problem.source} {problem.external_id}  {len(prompt.token_ids)} tokens")
        console.print(prompt.text, markup=False, soft_wrap=True)
        console.print(f"ids {list(prompt.token_ids)}", markup=False, soft_wrap=True)


def show_plan(config: Config, home: Home, branch: Fork | None, console: Console) -> None:
    """The resolved configuration, which stages are done and which are left, and what they will need."""
    check_settings(config)
    console.print(Syntax(config.to_yaml(), "yaml", background_color="default"))
    run_id = run_id_of(config, branch)
    console.print(
        f"run {run_id}" + (f", a fork of {branch.parent_run_id} at round {branch.iteration}" if branch else "")
    )
    console.print(_stage_table(config, _history(home, run_id, branch)))
    for name, value in _needs(config, home):
        console.print(f"{name:<22}{value}", markup=False, soft_wrap=True)


def _history(home: Home, run_id: str, branch: Fork | None) -> dict[tuple[int, str, str], dict[str, Any]]:
    if not home.database.exists():
        return {}
    with Store(home.database).read() as connection:
        if runs.find(connection, run_id) is not None:
            return stages.history(connection, run_id)
        if branch is None:
            return {}
        shared = stages.history(connection, branch.parent_run_id)
    return {slot: output for slot, output in shared.items() if slot[0] < branch.iteration}


def _stage_table(config: Config, history: dict[tuple[int, str, str], dict[str, Any]]) -> Table:
    total = config.run.iterations
    evaluations = len(config.evaluation.benchmarks) * _evaluation_points(config)
    wanted = {"generate": total, "verify": total, "score": total, "persist": total, "learn": total}
    if not objective_for(config.objective).needs_reference:
        del wanted["score"]
    wanted["evaluate"] = evaluations
    table = Table("stage", "done", "to do", show_edge=False)
    for name, count in wanted.items():
        done = min(count, sum(stage == name for _, stage, _ in history))
        table.add_row(name, str(done), str(count - done))
    return table


def _evaluation_points(config: Config) -> int:
    every, total = config.evaluation.every, config.run.iterations
    during = (total - 1) // every if every else 0
    return during + config.evaluation.before + config.evaluation.after


@dataclass(frozen=True)
class ModelSize:
    """What a model folder says of its size, without loading it."""

    parameters: int
    layers: int
    kv_width: int
    vocabulary: int


def model_size(folder: Path) -> ModelSize:
    """Read sizes from config.json and the headers of the safetensors files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                parameters += size
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads", 1)
    width = config.get("head_dim") or config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1))
    return ModelSize(parameters, config.get("num_hidden_layers", 0), heads * width, config.get("vocab_size", 0))


def _needs(config: Config, home: Home) -> list[tuple[str, str]]:
    """Estimates of disk and device memory, and what could not be looked at."""
    tokens = config.rollouts.max_prompt_tokens + config.rollouts.max_new_tokens
    total = config.run.iterations * config.batch_size
    disk = total * config.rollouts.max_new_tokens * (4 + TEXT_BYTES_PER_TOKEN)
    found = [
        ("root", str(home.root)),
        ("device", choose_device(config.model.device)),
        ("trajectories", f"{total:,} ({config.batch_size} a round)"),
        ("store, at most", f"{_gigabytes(disk)} (every response at max_new_tokens, before compression)"),
    ]
    try:
        problems, _ = read_problems(config)
        found.append(("problems", f"{len(problems):,}"))
    except ConfigError as error:  # the folder of the data is not named in this environment
        found.append(("problems", f"not readable here: {error}"))
    try:
        folder = _local_folder(config, home)
        size = model_size(folder)
    except (PolicyError, ConfigError) as error:
        found.append(("device memory", f"unknown, the model is not here: {error}"))
        return found
    bytes_per_value = 2 if config.model.dtype == "bfloat16" else 4
    reference = objective_for(config.objective).needs_reference
    learner = size.parameters * (BYTES_PER_MASTER + (4 if reference else 0))
    cache = min(config.batch_size, config.rollouts.engine.max_batch_sequences) * tokens
    cache *= 2 * size.layers * size.kv_width * bytes_per_value
    logits = min(config.optimizer.max_tokens_per_micro_batch, 2**28 // max(1, size.vocabulary)) * size.vocabulary * 4
    checkpoint = size.parameters * 12
    kept = 1 + config.run.iterations // config.checkpoint.every
    free = shutil.disk_usage(next(p for p in (home.root, *home.root.parents) if p.exists())).free
    return [
        *found,
        ("parameters", f"{size.parameters:,}"),
        ("device memory", f"learner and reference {_gigabytes(learner)}, KV cache at most {_gigabytes(cache)}, "
                          f"logits {_gigabytes(logits)}, activations not counted"),
        ("checkpoints", f"{kept} of {_gigabytes(checkpoint)}; free on this disk {_gigabytes(free)}"),
    ]  # fmt: skip


def _local_folder(config: Config, home: Home) -> Path:
    if config.model.path.startswith("builtin:"):
        made = sorted(home.models.glob(config.model.path.removeprefix("builtin:") + "_*"))
        if not made:
            raise PolicyError(f"{config.model.path} is made when the run starts.")
        return made[-1]
    path = expand(config.model.path)
    if not path.is_dir():
        raise PolicyError(f"{config.model.path} is no folder here; it is fetched from the hub when the run starts.")
    return path


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
