"""MLflow as a view of the store: one function that adds only what is missing.

It may be called at any time, by any attempt, any number of times: parameters are written once, and a metric point is
identified by (key, step), so nothing is lost and nothing is doubled after a crash.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from reval_core.config import Config
from reval_core.errors import Cancelled
from reval_core.home import Home
from reval_core.store import runs
from tasks.run import Here, Run

log = logging.getLogger(__name__)

NOT_METRICS = {"run_id", "run_name", "owner_run_id", "iteration", "finished_at"}
BATCH = 900
"""Metric points in one call; MLflow takes at most 1,000."""


@dataclass
class Tracker:
    """The MLflow run of one training run, and what is known to be in it."""

    client: MlflowClient
    mlflow_run_id: str
    known: set[tuple[str, int]] = field(default_factory=set)


@contextmanager
def tracking(run: Run) -> Iterator[Tracker]:
    """Find or make the run's MLflow run, log system metrics during the block, and mark how it ended."""
    config = run.config.tracking
    mlflow.set_tracking_uri(config.uri or run.home.mlflow_uri)
    client = MlflowClient()
    tracker = Tracker(client, _find_or_create(client, run))
    tracker.known = _points(client, tracker.mlflow_run_id)
    client.update_run(tracker.mlflow_run_id, status="RUNNING")
    monitor = None
    if config.system_metrics:
        monitor = SystemMetricsMonitor(tracker.mlflow_run_id, resume_logging=True)
        monitor.start()
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, Cancelled):
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        client.set_terminated(tracker.mlflow_run_id, status)


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
    missing = [point for point in _stored_points(run) if (point.key, point.step) not in tracker.known]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        tracker.client.log_batch(tracker.mlflow_run_id, metrics=part)
        tracker.known |= {(point.key, point.step) for point in part}
    return len(missing)


def log_files(tracker: Tracker, files: list[Path], folder: str) -> None:
    """Attach files (plots, the report) to the MLflow run; a file of the same name is replaced."""
    for path in files:
        tracker.client.log_artifact(tracker.mlflow_run_id, str(path), folder)


def show_round(here: Here) -> None:
    """Put the numbers of a round on the terminal."""
    row = here.run.store.query(
        "SELECT accuracy, residual_mean, staleness_mean FROM rounds WHERE run_id = $run_id AND iteration = $iteration",
        run_id=here.run.run_id,
        iteration=here.iteration,
    ).to_pylist()[0]
    here.run.progress.metrics(
        here.iteration, row["accuracy"] or 0.0, row["residual_mean"], row["staleness_mean"] or 0.0
    )


def _stored_points(run: Run) -> list[Metric]:
    points: list[Metric] = []
    for row in run.store.query("SELECT * FROM rounds WHERE run_id = $run_id", run_id=run.run_id).to_pylist():
        for key, value in row.items():
            if key not in NOT_METRICS and isinstance(value, int | float) and math.isfinite(value):
                points.append(_point(key, value, row["finished_at"], row["iteration"] + 1))
    found = run.store.query(
        "SELECT benchmark, metric, value, low, high, iteration, created_at FROM evaluations WHERE run_id = $run_id",
        run_id=run.run_id,
    )
    for row in found.to_pylist():
        # a benchmark may be the path of a file, which MLflow takes for no name
        name = f"eval/{_name(row['benchmark'])}/{_name(row['metric'].replace('@', '_at_'))}"
        for suffix, value in (("", row["value"]), ("/low", row["low"]), ("/high", row["high"])):
            if value is not None:
                points.append(_point(name + suffix, value, row["created_at"], row["iteration"] + 1))
    return points


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._")


def _point(key: str, value: float, at: datetime, step: int) -> Metric:
    """A metric point; its step is the number of rounds learned."""
    return Metric(key, float(value), int(at.replace(tzinfo=UTC).timestamp() * 1000), int(step))


def _find_or_create(client: MlflowClient, run: Run) -> str:
    name = run.config.tracking.experiment
    location = run.home.mlflow_artifacts.as_uri() if run.config.tracking.uri is None else None
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
    client.log_batch(mlflow_run_id, params=params, tags=_tags(run))
    with run.store.write() as connection:
        runs.set_mlflow_run(connection, run.run_id, mlflow_run_id)
    return str(mlflow_run_id)


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
    return [Param(key, str(value)[:6000]) for key, value in config.flat().items()]


def _tags(run: Run) -> list[RunTag]:
    tags = {
        "reval.attempt": run.attempt,
        "reval.store": run.home.database.name,
        "reval.parent_run_id": run.record.parent_run_id,
        "reval.fork_iteration": run.record.fork_iteration,
        "reval.base_policy_id": run.record.base_policy_id,
        "prefect.flow_run_id": run.flow_run_id,
    }
    return [RunTag(key, str(value)) for key, value in tags.items() if value is not None]


def _points(client: MlflowClient, mlflow_run_id: str) -> set[tuple[str, int]]:
    """(key, step) of every point that the MLflow run has, system metrics aside."""
    keys = [key for key in client.get_run(mlflow_run_id).data.metrics if not key.startswith("system/")]
    return {(key, point.step) for key in keys for point in client.get_metric_history(mlflow_run_id, key)}
