"""What a training run would do, before it does it: forks, rendered prompts, the plan of stages and its cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice

import psutil
import torch
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from flows import costs
from flows.asking import find_run
from flows.base_model import ModelSize, load_tokenizer_only, local_folder, model_size
from flows.costs import Need
from flows.lookup import Tally, tallies
from flows.opening import tell_sentences
from reval_core.config import Config, flatten
from reval_core.config_files import parse_config
from reval_core.environment import choose_device
from reval_core.errors import ConfigError, PolicyError, StoreError, VariableNotSet
from reval_core.home import Home
from reval_core.problems import PromptRenderer
from reval_core.problems.benchmarks import load_benchmark
from reval_core.store import Store, runs, stages
from reval_core.store.runs import RunRecord
from tasks.fork import Fork, run_id_of
from tasks.inputs import Inputs, read_problems
from tasks.preflight import check_prompts, check_reward, check_settings, context_length

Line = tuple[str, str]
"""What is estimated, and the estimate with what it rests on."""


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
    if home.database.exists():
        store.prepare()
        parent_id = find_run(store, parent_id) if start_from else parent_id
    with store.read() as connection:
        parent = runs.find(connection, parent_id)
        done = stages.rounds_done(stages.history(connection, parent_id)) if parent else 0
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
    moved = [line for line in changed if line.startswith(("model.", "prompt.", "optimizer.use:"))]
    if moved:
        raise ConfigError(
            f"A fork keeps its parent's model, prompt and kind of optimizer, this one changes {moved[0]}. Start a run "
            "instead."
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


def show_prompts(config: Config, home: Home, count: int, console: Console) -> None:
    """Text, token ids and stop set of the first prompts; needs the model's tokenizer and nothing else of it."""
    tokenizer = load_tokenizer_only(config.model)
    renderer = PromptRenderer(tokenizer, config.prompt)
    stop = {token: tokenizer.convert_ids_to_tokens(token) for token in renderer.stop_ids}
    console.print(
        f"responses end with: {', '.join(f'{text!r} ({token})' for token, text in stop.items())}", markup=False
    )
    for problem in islice(read_problems(config)[0].values(), count):
        prompt = renderer.render(problem)
        console.rule(f"{problem.source} {problem.external_id}  {len(prompt.token_ids)} tokens")
        console.print(prompt.text, markup=False, soft_wrap=True)
        console.print(f"ids {list(prompt.token_ids)}", markup=False, soft_wrap=True)


def show_plan(config: Config, home: Home, branch: Fork | None, console: Console) -> None:
    """The resolved configuration, which stages are done and which are left, and what the whole run needs."""
    check_settings(config)
    check_reward(config)
    inputs, unread = _readable_inputs(config)
    if config.reward.use == "math":
        tell_sentences(inputs.problems.values())
    _check_prompts(config, inputs, unread)
    console.print(Syntax(config.to_yaml(), "yaml", background_color="default"))
    run_id = run_id_of(config, branch)
    forked = f", a fork of {branch.parent_run_id} at round {branch.iteration}" if branch else ""
    console.print(f"run {run_id}{forked}", soft_wrap=True)
    console.print(_stage_table(tallies(config, home, branch, inputs)))
    for name, value in [("root", str(home.root)), *_data(config, inputs, unread), *_memory(config, home)]:
        console.print(f"{name:<26}{value}", markup=False, soft_wrap=True)


def nothing_to_do(config: Config, home: Home) -> bool:
    """Whether every stage of the run that the configuration names is done; it looks into the store and loads no model.

    Raises:
        ConfigError: the settings cannot be used on this machine.
    """
    check_settings(config)
    inputs, unread = _readable_inputs(config)
    found = tallies(config, home, None, inputs).values()
    return not unread and not any(tally.to_do or tally.undecided for tally in found)


def _readable_inputs(config: Config) -> tuple[Inputs, dict[str, str]]:
    """Problems and benchmarks, and why some cannot be read here: the folder of the data need not be named yet."""
    unread: dict[str, str] = {}
    found = Inputs({}, {}, {})
    try:
        found = Inputs(*read_problems(config), {})
    except VariableNotSet as error:
        unread["the problems"] = str(error)
    for name in config.evaluation.benchmarks if costs.evaluated_rounds(config) else ():
        try:
            limit = config.evaluation.limits.get(name, config.evaluation.limit)
            found.benchmarks[name] = load_benchmark(name, limit, config.evaluation.files)
        except VariableNotSet as error:
            unread[name] = str(error)
    return found, unread


def _check_prompts(config: Config, inputs: Inputs, unread: dict[str, str]) -> None:
    """Render every prompt; where the tokenizer is the hub's and cannot be had now, say so."""
    folder = local_folder(config.model)
    try:
        tokenizer = load_tokenizer_only(config.model)
    except PolicyError as error:
        if folder is not None:
            raise
        unread["the tokenizer, so no prompt was checked"] = str(error)
        return
    context = context_length(folder) if folder is not None else None
    check_prompts(config, context, PromptRenderer(tokenizer, config.prompt), inputs)


def _stage_table(found: dict[str, Tally]) -> Table:
    table = Table("stage", "done", "to do", "decided as it goes", show_edge=False)
    for name, tally in found.items():
        table.add_row(name, str(tally.done), str(tally.to_do), str(tally.undecided))
    return table


def _data(config: Config, inputs: Inputs, unread: dict[str, str]) -> Iterator[Line]:
    """Estimates of what the whole run writes into the store."""
    counted = costs.rows(config, inputs)
    yield "problems", f"{len(inputs.problems):,}, and {len(inputs.all) - len(inputs.problems):,} in benchmarks"
    if unread:
        yield "not readable here", f"{', '.join(unread)}: {next(iter(unread.values()))}"
    yield "trajectories", f"{counted.responses:,} ({config.batch_size} a round), {counted.evaluated:,} more to evaluate"
    basis = f"from rows of every kind and responses of {config.rollouts.max_new_tokens} tokens"
    yield "store", f"about {_bytes(costs.store_bytes(config, counted))}, {basis}"


def _memory(config: Config, home: Home) -> Iterator[Line]:
    """Estimates of saved policies and device memory, by the size of the model."""
    device = choose_device(config.model.device)
    yield "device", f"{device}, {_bytes(_device_memory(device))}"
    try:
        size = model_size(config.model)
    except PolicyError as error:
        yield "device memory", f"unknown: {error}"
        return
    yield "parameters", f"{size.parameters:,}, from {size.source}"
    yield "saved policies", _saved(config, home, size)
    for phase, needs, beside in (
        ("learning", costs.learning_memory(config, size), ""),
        ("generating", costs.generating_memory(config, size), costs.beside(config)),
    ):
        yield from ((f"  {need.name}", f"{_bytes(need.size)} ({need.formula})") for need in needs)
        yield f"memory while {phase}", f"about {_bytes(_total(needs))}{beside}"


def _total(needs: list[Need]) -> int:
    return sum(need.size for need in needs)


def _saved(config: Config, home: Home, size: ModelSize) -> str:
    whole, evaluated = costs.saved_rounds(config)
    each = costs.checkpoint_bytes(config)
    needed = costs.learned_parameters(config, size) * (each * len(whole) + 4 * len(evaluated))
    free = shutil.disk_usage(next(p for p in (home.root, *home.root.parents) if p.exists())).free
    return (
        f"{len(whole) + len(evaluated)} folders, about {_bytes(needed)} ({len(whole)} checkpoints of {each} bytes a "
        f"{costs.unit(config)}, {len(evaluated)} only evaluated, of 4); free here {_bytes(free)}"
    )


def _device_memory(device: str) -> int:
    if device.startswith("cuda") and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _bytes(size: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
