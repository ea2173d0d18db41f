"""The saved policies of a run as MLflow's logged models: one for each folder, with its evaluations; gone when it goes.

Like all of MLflow they are a view: the weights stay under ``policies/``, and any call adds only what is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.tracking import MlflowClient

from reval_core.store import statements as sql
from tasks.evaluate import current_evaluations
from tasks.run import Run
from tasks.track import Tracker, evaluation_points, going_on_without, in_one_piece

EXTERNAL = "mlflow.model.isExternal"
"""MLflow's own tag of a model whose files lie elsewhere."""


@dataclass(frozen=True)
class SavedPolicy:
    """A policy that the run made, and its folder."""

    policy_id: str
    rounds: int
    """That it has learned."""
    folder: Path


def log_models(run: Run, tracker: Tracker) -> None:
    """Bring MLflow's logged models up to the folders of the run's policies."""
    with going_on_without():
        if tracker.mlflow_run_id is not None:
            _reconcile(run, tracker.client, tracker.mlflow_run_id)


def _reconcile(run: Run, client: MlflowClient, mlflow_run_id: str) -> None:
    saved = {policy.policy_id: policy for policy in _saved(run)}
    shown = client.get_run(mlflow_run_id)
    known = {model.name: model for model in _known(client, shown.info.experiment_id, mlflow_run_id)}
    for name in known.keys() - saved.keys():
        with in_one_piece(client):
            client.delete_logged_model(known[name].model_id)
    outputs = {output.model_id for output in shown.outputs.model_outputs} if shown.outputs else set()
    points = _points(run)
    for name, policy in saved.items():
        with in_one_piece(client):
            model = known.get(name) or _create(run, client, shown.info.experiment_id, mlflow_run_id, policy)
            if model.model_id not in outputs:
                client.log_outputs(mlflow_run_id, [LoggedModelOutput(model.model_id, policy.rounds)])
            if model.status != LoggedModelStatus.READY:
                client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            measured = {(metric.key, metric.step) for metric in model.metrics or ()}
            missing = [point for point in points[name] if (point.key, point.step) not in measured]
            if missing:
                client.log_batch(mlflow_run_id, metrics=[_of(point, model) for point in missing])


def _saved(run: Run) -> Iterator[SavedPolicy]:
    with run.store.read() as connection:
        found = sql.rows(connection, "policies", "saved_by", run_id=run.run_id)
    for policy_id, iteration, folder in found:
        if (path := run.home.root / folder).is_dir():
            yield SavedPolicy(policy_id, iteration + 1, path)


def _known(client: MlflowClient, experiment_id: str, mlflow_run_id: str) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models(
            [experiment_id], filter_string=f"source_run_id = '{mlflow_run_id}'", page_token=token
        )
        yield from page
        if (token := page.token) is None:
            return


def _create(run: Run, client: MlflowClient, experiment_id: str, mlflow_run_id: str, policy: SavedPolicy) -> LoggedModel:
    return client.create_logged_model(
        experiment_id,
        name=policy.policy_id,
        source_run_id=mlflow_run_id,
        tags={
            EXTERNAL: "true",
            "reval.run_id": run.run_id,
            "reval.folder": str(policy.folder.relative_to(run.home.root)),
        },
        params={
            "policy_id": policy.policy_id,
            "rounds": str(policy.rounds),
            "base_policy_id": run.record.base_policy_id,
        },
        model_type="policy",
    )


def _points(run: Run) -> dict[str, list[Metric]]:
    """By policy."""
    found: dict[str, list[Metric]] = defaultdict(list)
    for row in current_evaluations(run):
        found[row["policy_id"]] += evaluation_points([row])
    return found


def _of(point: Metric, model: LoggedModel) -> Metric:
    """The run's point, said of the model as well; MLflow keeps one of two equal ones."""
    return Metric(point.key, point.value, point.timestamp, point.step, model_id=model.model_id)
