"""What an offline run learns from: resolved once, when the run begins, and the run's identity from then on."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.problems import Problem
from reval_core.store import Store, replay, runs, selections, stages
from reval_core.store import problems as stored_problems
from tasks.fork import run_id_of


@dataclass(frozen=True)
class Selection:
    """The trajectories of an offline run."""

    run_id: str
    trajectory_ids: tuple[str, ...]
    """Each once, in the order of their names."""
    problems: dict[str, Problem]
    """What they answer, with the gold answers that count now."""


def select(config: Config, store: Store) -> Selection:
    """The trajectories to learn from, and the run that learns from them.

    A run of the same configuration that has rounds left goes on with the trajectories that it began with. Else the
    selection is made now: the same trajectories are the same run, others another.

    Raises:
        ConfigError: the configuration names no selection.
        StoreError: it finds nothing, or fails.
    """
    if config.offline is None:
        raise ConfigError("offline.trajectories is missing: name what to learn from, such as window:RUN or a query.")
    with store.read() as connection:
        run_id, names = _begun(connection, config) or _new(connection, config)
        chosen = selections.about(connection, names)
        selections.check_purpose(chosen)
        problems = stored_problems.read(
            connection, [one.problem_id for one in chosen], whole_row=config.reward.use != "math"
        )
    return Selection(run_id, tuple(names), problems)


def _begun(connection: duckdb.DuckDBPyConnection, config: Config) -> tuple[str, list[str]] | None:
    assert config.offline is not None
    for run_id in runs.of_config(connection, config.config_id):
        record = runs.find(connection, run_id)
        if record is None or record.config.get("offline") != config.offline.model_dump(mode="json"):
            continue
        entries = replay.entries(connection, run_id, 0)
        if entries and stages.rounds_done(stages.history(connection, run_id)) < config.run.iterations:
            return run_id, sorted(entry.trajectory_id for entry in entries)
    return None


def _new(connection: duckdb.DuckDBPyConnection, config: Config) -> tuple[str, list[str]]:
    assert config.offline is not None
    names = selections.choose(connection, config.offline.trajectories, config.offline.parameters)
    return run_id_of(config, selection_id=selections.selection_id(names)), names
