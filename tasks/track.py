"""MLflow as a view of the store: one function that adds only what is missing.

It may be called at any time, by any attempt, any number of times: parameters are written once, and a metric point is
identified by (key, step), so nothing is lost and nothing is doubled after a crash.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from reval_core.config import Config, flatten
from reval_core.home import Home
from reval_core.identity import digest
from reval_core.redaction import without_secrets
from reval_core.store import runs
from tasks.ending import ASKED_TO_END, interruptions_told, signals_wait
from tasks.evaluate import current_evaluations
from tasks.finished import finished_rounds
from tasks.run import Here, Run
from tasks.services import alone

log = logging.getLogger(__name__)

NOT_METRICS = {"run_id", "run_name", "owner_run_id", "iteration", "finished_at", "staleness"}
"""Columns that are no metric, or one again: staleness is staleness_mean."""
AT_ONCE = 100
"""Parameters, or tags, that MLflow takes in one call."""
BATCH = 900
"""Metric points in one call; MLflow takes at most 1,000."""
LONGEST_KEY = 250
"""Characters of a parameter's or a tag's name."""


@dataclass
class Tracker:
    """The MLflow run of one training run, and what is known to be in it."""

    client: MlflowClient
    mlflow_run_id: str | None = None
    """None while MLflow could not be reached; each `track` tries again."""
    known: set[tuple[str, int]] = field(default_factory=set)
    monitor: SystemMetricsMonitor | None = None


def tracking_uri(run: Run) -> str:
    """Where this run is tracked: as configured, as the environment says, or in the root's own SQLite file."""
    return run.config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or run.home.mlflow_uri


@contextmanager
def tracking(run: Run) -> Iterator[Tracker]:
    """Find or make the run's MLflow run, log system metrics during the block, and mark how it ended.

    MLflow is a view of the store: when it cannot be reached the run goes on, and a later `track` catches up.
    """
    # a client of our own: mlflow.set_tracking_uri would write the address into the environment
    with alone(run.home):
        tracker = Tracker(MlflowClient(tracking_uri(run)))
    status = "FAILED"
    try:
        with going_on_without():
            _connect(run, tracker)
        with interruptions_told():
            yield tracker
        status = "FINISHED"
    except ASKED_TO_END:
        status = "KILLED"
        raise
    finally:
        if tracker.monitor is not None:
            tracker.monitor.finish()
        if tracker.mlflow_run_id is not None:
            with going_on_without(), in_one_piece(tracker.client):
                tracker.client.set_terminated(tracker.mlflow_run_id, status)


def _connect(run: Run, tracker: Tracker) -> None:
    if tracker.mlflow_run_id is not None:
        return
    with alone(run.home):
        mlflow_run_id = _find_or_create(tracker.client, run)
    tracker.known = _points(tracker.client, mlflow_run_id)
    tracker.client.update_run(mlflow_run_id, status="RUNNING")
    if run.config.tracking.system_metrics:
        tracker.monitor = SystemMetricsMonitor(mlflow_run_id, resume_logging=True, tracking_uri=tracking_uri(run))
        tracker.monitor.start()
    tracker.mlflow_run_id = mlflow_run_id


@contextmanager
def going_on_without() -> Iterator[None]:
    """What MLflow refuses in this block is told and left to a later call."""
    try:
        yield
    except (MlflowException, OSError) as error:  # stores of artifacts raise what requests or the disk raise
        log.warning(
            "MLflow could not be written (%s); the store has everything, the next round catches up",
            without_secrets(str(error)),
        )


@contextmanager
def in_one_piece(client: MlflowClient) -> Iterator[None]:
    """A write into MLflow's own database: one that a signal breaks off keeps it locked until the process is gone.

    A server's database does not, and there is no telling how long a server takes.
    """
    with nullcontext() if client.tracking_uri.startswith("http") else signals_wait():
        yield


@task(name="track", task_run_name="track", cache_policy=NO_CACHE, persist_result=False)
def _track(work: Callable[[], int]) -> None:
    work()


def track(run: Run, tracker: Tracker) -> None:
    """Bring MLflow up to the store: metrics of committed rounds and evaluations that it does not have yet."""
    if FlowRunContext.get() is None:
        reconcile(run, tracker)
    else:
        _track(lambda: reconcile(run, tracker))


def reconcile(run: Run, tracker: Tracker) -> int:
    """Write the missing points; returns how many there were."""
    with going_on_without():
        _connect(run, tracker)
        return _add_missing(run, tracker)
    return 0


def _add_missing(run: Run, tracker: Tracker) -> int:
    missing = [point for point in _stored_points(run, tracker.known) if (point.key, point.step) not in tracker.known]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        with in_one_piece(tracker.client):
            tracker.client.log_batch(tracker.mlflow_run_id, metrics=part)
        tracker.known |= {(point.key, point.step) for point in part}
    return len(missing)


def log_files(tracker: Tracker, files: list[Path], folder: str) -> None:
    """Attach files (plots, the report) to the MLflow run; a file of the same name is replaced."""
    with going_on_without():
        for path in files if tracker.mlflow_run_id is not None else []:
            with in_one_piece(tracker.client):
                tracker.client.log_artifact(tracker.mlflow_run_id, str(path), folder)


def show_round(here: Here) -> None:
    """Put the numbers of a round on the terminal."""
    (row,) = finished_rounds(here.run, here.iteration, here.iteration)
    # a reward that is a number of its own has no right and wrong
    shown = "reward_mean" if here.run.config.reward.knows_no_wrong else "accuracy"
    if row[shown] is None:  # nothing was sampled, as in a round of an offline run
        shown = "loss"
    success = f"{shown.removesuffix('_mean')} {row[shown] or 0.0:.3f}"
    here.run.progress.metrics(here.iteration, success, row["residual_mean"], row["staleness_mean"])


def _stored_points(run: Run, known: set[tuple[str, int]]) -> list[Metric]:
    with run.store.read():  # held open for the reads within
        return _round_points(run, known) + evaluation_points(current_evaluations(run))


def _round_points(run: Run, known: set[tuple[str, int]]) -> list[Metric]:
    points: list[Metric] = []
    # rounds are written in order, so what is missing lies at the last known one or after it
    since = max((step for key, step in known if key == "trajectories"), default=0)
    for row in finished_rounds(run, since, run.iterations_done() - 1):
        for key, value in row.items():
            if key not in NOT_METRICS and isinstance(value, int | float) and math.isfinite(value):
                points.append(_point(key, value, row["finished_at"], row["iteration"]))
    return points


def evaluation_points(rows: Iterable[Mapping[str, Any]]) -> list[Metric]:
    """Metric points of rows of `current_evaluations`: each value, and the ends of its interval."""
    points: list[Metric] = []
    for row in rows:
        name = f"eval/{_name(row['benchmark'])}/{_name(row['metric'].replace('@', '_at_'))}"
        for suffix, value in (("", row["value"]), ("/low", row["low"]), ("/high", row["high"])):
            if value is not None:
                points.append(_point(name + suffix, value, row["created_at"], row["iteration"] + 1))
    return points


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._") or "unnamed"


def _key(setting: str) -> str:
    """A setting's name as MLflow takes it: some have names of the user's own in them, as of files or benchmarks."""
    parts = (re.sub(r"[^\w.\- :]", "_", part) for part in setting.split("/"))
    return "/".join("_" if part == ".." else part for part in parts if part not in ("", "."))[:LONGEST_KEY]


def _point(key: str, value: float, at: datetime, step: int) -> Metric:
    """A metric point. Steps are rounds learned: what iteration i sampled and learned stands at i, and so does the
    evaluation of the policy that it began with."""
    return Metric(key, float(value), int(at.replace(tzinfo=UTC).timestamp() * 1000), int(step))


def _find_or_create(client: MlflowClient, run: Run) -> str:
    name = run.config.tracking.experiment
    location = run.home.mlflow_artifacts.as_uri() if tracking_uri(run) == run.home.mlflow_uri else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        experiment_id = client.create_experiment(name, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
        if location is not None and experiment.artifact_location != location:
            _relocate(run.home, experiment.artifact_location, location)
    found = client.search_runs(
        [experiment_id], f"tags.`reval.run_id` = '{run.run_id}'", run_view_type=ViewType.ACTIVE_ONLY, max_results=1
    )
    tags = {"reval.run_id": run.run_id}
    shown = found[0] if found else client.create_run(experiment_id, run_name=run.run_id, tags=tags)
    mlflow_run_id = shown.info.run_id
    params = [param for param in _params(run.config) if param.key not in shown.data.params]
    for start in range(0, len(params), AT_ONCE):
        client.log_batch(mlflow_run_id, params=params[start : start + AT_ONCE])
    tags_now = _tags(run)
    for start in range(0, len(tags_now), AT_ONCE):
        client.log_batch(mlflow_run_id, tags=tags_now[start : start + AT_ONCE])
    _log_config(client, mlflow_run_id, run.config)
    with run.store.write() as connection:
        runs.set_mlflow_run(connection, run.run_id, mlflow_run_id)
    return str(mlflow_run_id)


def _log_config(client: MlflowClient, mlflow_run_id: str, config: Config) -> None:
    """The whole configuration as a file, one for each that attempts were started with."""
    text = config.to_yaml()
    path = f"config/{digest('cfg', text).removeprefix('cfg_')[:8]}.yaml"
    if path not in {artifact.path for artifact in client.list_artifacts(mlflow_run_id, "config")}:
        client.log_text(mlflow_run_id, text, path)


def _relocate(home: Home, old: str, new: str) -> None:
    """Where artifacts lie, after the root was copied or moved: MLflow keeps it as an absolute path, with no call to
    change it, and would go on writing into the old root."""
    with closing(sqlite3.connect(home.root / "mlflow.db")) as database, database:
        names = {"old": old, "new": new}
        database.execute("UPDATE experiments SET artifact_location = :new WHERE artifact_location = :old", names)
        database.execute(
            "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
            "WHERE substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
            names,
        )


def _params(config: Config) -> list[Param]:
    """What decides the run and never changes in it; MLflow does not let a parameter change."""
    return [Param(_key(key), str(value)[:6000]) for key, value in flatten(config.identity()).items()]


def _tags(run: Run) -> list[RunTag]:
    identity = flatten(run.config.identity())
    settings = {key: value for key, value in run.config.flat().items() if key not in identity}
    tags = {
        **{f"setting.{key}": str(value)[:4000] for key, value in settings.items()},
        "reval.attempt": run.attempt,
        "reval.store": run.home.database.name,
        "reval.parent_run_id": run.record.parent_run_id,
        "reval.fork_iteration": run.record.fork_iteration,
        "reval.base_policy_id": run.record.base_policy_id,
        "prefect.flow_run_id": run.flow_run_id,
    }
    return [RunTag(_key(key), str(value)) for key, value in tags.items() if value is not None]


SYSTEM = {
    "processors, %": ("system/cpu_utilization_percentage", 1.0),
    "memory of the machine, GB": ("system/system_memory_usage_megabytes", 1e-3),
    "GPU, %": ("system/gpu_0_utilization_percentage", 1.0),
    "memory of the GPU, GB": ("system/gpu_0_memory_usage_megabytes", 1e-3),
}
"""What a report shows of the machine: heading, MLflow's system metric, and its factor."""


def system_metrics(run: Run) -> dict[str, dict[str, list[float]]]:
    """Use of the machine over the run, as MLflow has it: heading to columns minutes (since the first point) and value.

    Empty where nothing was logged, or MLflow cannot be reached.
    """
    with run.store.read() as connection:
        record = runs.find(connection, run.run_id)
    found: dict[str, dict[str, list[float]]] = {}
    if record is None or record.mlflow_run_id is None:
        return found
    with going_on_without():
        client = MlflowClient(tracking_uri(run))
        logged = client.get_run(record.mlflow_run_id).data.metrics
        for heading, (key, factor) in SYSTEM.items():
            history = client.get_metric_history(record.mlflow_run_id, key) if key in logged else []
            points = sorted((point.timestamp, point.value) for point in history)
            if points:
                minutes = [(at - points[0][0]) / 60_000 for at, _ in points]
                found[heading] = {"minutes": minutes, "value": [value * factor for _, value in points]}
    return found


def _points(client: MlflowClient, mlflow_run_id: str) -> set[tuple[str, int]]:
    """(key, step) of every point that the MLflow run has, system metrics aside."""
    keys = [key for key in client.get_run(mlflow_run_id).data.metrics if not key.startswith("system/")]
    return {(key, point.step) for key in keys for point in client.get_metric_history(mlflow_run_id, key)}
