"""What a start from a form or a schedule means: told once, when it first begins, and kept for its retries.

"latest" and "best" are words for what the store holds at that moment. Everything that they stand for is in the meaning,
the whole configuration too, so a retry after a week repeats the start and not the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flows import planning
from flows.opening import LATEST, find_policy
from reval_core.config import Config
from reval_core.config_files import load_config, parse_config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store, places, runs, schedule, stages
from reval_core.store.runs import RunRecord
from tasks.fork import Fork, run_id_of
from tasks.inputs import read_problems

BEST = "best"


@dataclass(frozen=True)
class Training:
    """What a training start stands for."""

    config: Config
    fork: Fork | None
    run_id: str
    nothing_new: bool = False
    """It was to train on new problems only, and there are none."""

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "run_id": self.run_id,
            "nothing_new": self.nothing_new,
            "fork": None if self.fork is None else asdict(self.fork),
            "config": self.config.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Training:
        """As it was kept."""
        fork = None if kept["fork"] is None else Fork(**kept["fork"])
        return cls(parse_config(dict(kept["config"])), fork, kept["run_id"], kept["nothing_new"])


def resolved(
    home: Home, flow_run_id: str | None, flow: str, asked: Mapping[str, Any], mean: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What this start means; a retry means what the first attempt did.

    Args:
        home: the root.
        flow_run_id: Prefect's id, the same for a retry; None outside a flow run.
        flow: its name.
        asked: the parameters as they were given.
        mean: tells the meaning, as plain JSON data.
    """
    store = Store(home.database)
    store.prepare()
    if flow_run_id is not None:
        with store.read() as connection:
            kept = places.meant(connection, flow_run_id)
        if kept is not None:
            return kept
    meaning = mean()
    if flow_run_id is not None:
        with store.write() as connection:
            places.add_start(connection, flow_run_id, flow, asked, meaning)
    return meaning


def training(
    config: Config,
    home: Home,
    *,
    continue_from: str | None,
    add_iterations: int | None,
    only_new_problems: bool,
    fork_from: str | None,
    force: str | None,
) -> Training:
    """Which run a training start works on, from where, and how far.

    Args:
        config: file, form and overrides together.
        home: the root.
        continue_from: ``latest``, ``best``, a run id, or RUN@ROUND; None for the run that the configuration names.
        add_iterations: rounds on top of those that are there; None: until ``run.iterations``.
        only_new_problems: train only if the sources have problems that no round of the run has drawn.
        fork_from: RUN@ROUND to branch off.
        force: generate@ROUND to sample anew.

    Raises:
        ConfigError: the words do not fit together, or the fork is not allowed.
        StoreError: there is no such run.
    """
    if continue_from and (fork_from or force):
        raise ConfigError("continue_from and fork_from, force: one says go on, the other branch off. Give one of them.")
    place = _place(home, config, continue_from) if continue_from else None
    if place is None:
        fork = planning.fork(config, home, start_from=fork_from, force=force)
        done = _done(home, run_id_of(config, fork)) or (fork.iteration if fork else 0)
        config = _longer(config, done, add_iterations)
    else:
        config, fork = _continued(home, config, *place, add_iterations)
    run_id = run_id_of(config, fork)
    nothing_new = only_new_problems and not _has_new(home, config, run_id, fork)
    return Training(config, fork, run_id, nothing_new)


def _place(home: Home, config: Config, word: str) -> tuple[RunRecord, int | None] | None:
    """The run to go on with and the rounds of it that count, None for all; None where there is no run yet."""
    name = config.run.name
    with Store(home.database).read() as connection:
        if word == LATEST:
            run_id, rounds = places.latest_run(connection, name), None
        elif word == BEST:
            benchmark, metric = measure(config)
            found = places.best(connection, name, benchmark, metric)
            run_id, rounds = (None, None) if found is None else (found.run_id, found.iteration + 1)
        else:
            run_id, _, at = word.partition("@")
            if at and not at.isdigit():
                raise ConfigError(f"continue_from {word!r}: write latest, best, RUN or RUN@ROUND.")
            rounds = int(at) if at else None
        record = runs.find(connection, run_id) if run_id else None
    if record is None and word not in (LATEST, BEST):
        raise StoreError(f"There is no run {run_id} to go on with. `reval runs` lists what there is.")
    return None if record is None else (record, rounds)


def measure(config: Config) -> tuple[str, str]:
    """(benchmark, metric) by which a policy is the best: avg@k at the first benchmark of the configuration.

    Raises:
        ConfigError: the configuration names no benchmark.
    """
    if not config.evaluation.benchmarks:
        raise ConfigError("'best' needs a benchmark: name one in evaluation.benchmarks, or use 'latest'.")
    return config.evaluation.benchmarks[0], f"avg@{config.evaluation.samples_per_problem}"


def _continued(
    home: Home, config: Config, record: RunRecord, rounds: int | None, add_iterations: int | None
) -> tuple[Config, Fork | None]:
    """The run itself where nothing that decides results differs and all its rounds count; else a fork of it."""
    done = _done(home, record.run_id) or 0
    start = done if rounds is None else rounds
    config = _longer(config, start, add_iterations)
    same = record.config_id == config.config_id
    if same and start == done:
        if record.parent_run_id is None or record.fork_iteration is None:
            return config, None
        return config, Fork(record.parent_run_id, record.fork_iteration, record.forced)
    place = f"{record.run_id}@{start}"
    # under the same settings the rounds after it would be the same again, so the next one is sampled anew
    force = f"generate@{start}" if same else None
    return config, planning.fork(config, home, start_from=place, force=force)


def _longer(config: Config, done: int, add_iterations: int | None) -> Config:
    if add_iterations is None:
        return config
    run = config.run.model_copy(update={"iterations": done + add_iterations})
    return config.model_copy(update={"run": run})


def _done(home: Home, run_id: str) -> int | None:
    """Rounds that the run has learned; None for one that the store does not have."""
    with Store(home.database).read() as connection:
        if runs.find(connection, run_id) is None:
            return None
        return stages.rounds_done(stages.history(connection, run_id))


def _has_new(home: Home, config: Config, run_id: str, fork: Fork | None) -> bool:
    """Whether the sources have problems that no round of the run's chain has learned from; True for a new run."""
    problems, _ = read_problems(config)
    done = _done(home, run_id)
    known, until = (fork.parent_run_id, fork.iteration) if done is None and fork is not None else (run_id, done or 0)
    with Store(home.database).read() as connection:
        return not problems.keys() <= schedule.drawn(connection, known, until)


def policy_named(home: Home, word: str, config: str | None) -> str:
    """The policy that a word stands for now; a whole id, a folder or a model's name as it is.

    Raises:
        StoreError: there is no saved policy yet, or none of that name.
    """
    if word not in (LATEST, BEST):
        return find_policy(home, word)
    named = load_config(config) if config else None
    with Store(home.database).read() as connection:
        if word == LATEST:
            found = places.latest_policy(connection, named.run.name if named else None)
        elif named is None:
            raise StoreError("'best' of which runs? Give a configuration: its run.name and first benchmark say.")
        else:
            best = places.best(connection, named.run.name, *measure(named))
            found = best.policy_id if best else None
    if found is None:
        raise StoreError(f"There is no {word} policy in this store yet. Train one, or name a model folder.")
    return found
