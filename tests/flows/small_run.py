"""A training run small enough for tests: four rounds of eight responses by a model of 100,000 parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flows.learn
import flows.train
import tasks.report
from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config
from reval_core.home import Home
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.store import Store
from tasks.open_run import Fork
from tasks.outcome import Outcome
from tasks.progress import Progress
from tasks.run import Run
from tasks.stage import Stage

PROMPTS, ROLLOUTS, ROUNDS, POOL = 4, 2, 4, 6
BATCH = PROMPTS * ROLLOUTS
UPDATES = 3
TABLES = (
    "batches",
    "evaluations",
    "payloads",
    "policies",
    "problem_schedule",
    "prompts",
    "reference_scores",
    "replay_entries",
    "rounds",
    "stages",
    "stage_links",
    "trajectories",
    "update_trajectories",
    "updates",
    "verdicts",
)


CANARY = "hf_canary_0815_shown_nowhere"
"""A secret of the environment that no file under a root may hold."""


@dataclass(frozen=True)
class Finished:
    """The small run after its last round, with MLflow, evaluations and report. Nobody writes into its root."""

    config: Config
    home: Home
    outcome: Outcome


Reval = Callable[..., tuple[int, str, str]]
"""Calls the command line; gives exit code, output and errors."""


class Crash(Exception):
    """Stands for whatever ends an attempt at the worst moment."""


def tree(base: Path, problems: Path) -> dict[str, Any]:
    """The raw configuration of the small run."""
    return {
        "run": {"name": "small", "iterations": ROUNDS},
        "model": {"path": str(base), "threads": 1, "device": "cpu"},
        "prompt": {"template": "none"},
        "problems": [{"path": str(problems)}],
        "rollouts": {
            "prompts_per_iteration": PROMPTS,
            "rollouts_per_prompt": ROLLOUTS,
            "max_prompt_tokens": 16,
            "max_new_tokens": 24,
        },
        "replay": {"capacity": 2 * BATCH},
        "objective": {"beta": 0.05, "updates": {"on_policy": 1, "off_policy": UPDATES - 1}},
        "optimizer": {"lr": 1e-3},
        "evaluation": {"before": False, "after": False, "samples_per_problem": 2},
        "checkpoint": {"every": 2},
        "tracking": {"system_metrics": False},
    }


def changed(config: Config, *overrides: str) -> Config:
    """The configuration with some keys set as on the command line."""
    raw = config.model_dump(mode="json")
    for override in overrides:
        apply_override(raw, override)
    return parse_config(raw)


def train(config: Config, home: Home, fork: Fork | None = None) -> Outcome:
    """One attempt in this process, without Prefect."""
    return flows.train.train.fn(config, home, Progress(quiet=True), fork)


def rows(home: Home, sql: str, **values: Any) -> list[dict[str, Any]]:
    """The result of a query."""
    return Store(home.database).query(sql, **values).to_pylist()


def value(home: Home, sql: str, **values: Any) -> Any:
    """The one cell of a query's result."""
    (row,) = rows(home, sql, **values)
    (cell,) = row.values()
    return cell


def counts(home: Home) -> dict[str, int]:
    """Rows of each table that a repeated attempt must not add to."""
    columns = ", ".join(f"(SELECT count(*) FROM store.{name}) AS {name}" for name in TABLES)
    (row,) = rows(home, f"SELECT {columns}")
    return row


def lineage(home: Home, run_id: str) -> list[tuple[int, str, str]]:
    """(iteration, policy, checksum of its weights) of each round."""
    found = rows(
        home,
        "SELECT r.iteration, r.policy_id, p.weights_checksum FROM rounds AS r JOIN policies AS p USING (policy_id) "
        "WHERE r.run_id = $run_id ORDER BY r.iteration",
        run_id=run_id,
    )
    return [tuple(row.values()) for row in found]


def responses(home: Home) -> list[tuple[Any, ...]]:
    """Every training response with its tokens, by id."""
    found = rows(
        home,
        "SELECT trajectory_id, t.seed, y.response_ids, y.completion, count(*) OVER (PARTITION BY trajectory_id) AS n "
        "FROM store.trajectories AS t JOIN store.payloads AS y USING (trajectory_id) JOIN store.batches AS b "
        "USING (batch_id) WHERE b.purpose = 'training' ORDER BY trajectory_id",
    )
    return [tuple(json.dumps(cell) for cell in row.values()) for row in found]


@contextmanager
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out MLflow, a view of the store that takes longer than the run itself."""

    @contextmanager
    def no_tracking(run: Any) -> Iterator[None]:
        yield

    with monkeypatch.context() as patch:
        for flow in (flows.train, flows.learn):
            patch.setattr(flow, "tracking", no_tracking)
        patch.setattr(flows.train, "track", lambda run, tracker: None)
        patch.setattr(flows.train, "log_models", lambda run, tracker: None)
        patch.setattr(flows.train, "log_files", lambda tracker, files, folder: None)
        yield


@contextmanager
def without_plots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the plots out of the report."""
    with monkeypatch.context() as patch:
        patch.setattr(tasks.report, "draw", lambda run: {})
        patch.setattr(tasks.report, "FIGURES", ())
        yield


@contextmanager
def crash_at(monkeypatch: pytest.MonkeyPatch, name: str, iteration: int, moment: str) -> Iterator[None]:
    """An attempt in this block ends at a stage: "before" its commit, in the same transaction, or "after" it."""
    link, remember = Stage._link, Run.remember

    def linked(self: Stage[Any, Any], connection: Any, here: Any, slot: Any, stage_key: str, *, executed: bool) -> None:
        link(self, connection, here, slot, stage_key, executed=executed)
        if slot[:2] == (iteration, name) and moment == "before":
            raise Crash(f"{name}@{iteration}")

    def remembered(self: Run, slot: Any, output: Any, *, executed: bool) -> None:
        remember(self, slot, output, executed=executed)
        if slot[:2] == (iteration, name) and moment == "after":
            raise Crash(f"{name}@{iteration}")

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_link", linked)
        patch.setattr(Run, "remember", remembered)
        with pytest.raises(Crash):
            yield


@contextmanager
def sampled(monkeypatch: pytest.MonkeyPatch, *, crash_after: int | None = None) -> Iterator[list[tuple[str, int, int]]]:
    """(problem, sample index, seed) of every response that the engine finished in the block."""
    seen: list[tuple[str, int, int]] = []
    sample = TransformersEngine.sample

    def counted(self: TransformersEngine, requests: Any, settings: Any) -> Iterator[Any]:
        for done in sample(self, requests, settings):
            if crash_after is not None and len(seen) == crash_after:
                raise Crash("generate")
            seen.append((done.request.problem_id, done.request.sample_index, done.request.seed))
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "sample", counted)
        yield seen
