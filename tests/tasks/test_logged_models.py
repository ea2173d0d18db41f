"""Saved policies in MLflow: one logged model for each folder, with its evaluations, once however often it is asked."""

import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.tracking import MlflowClient

from reval_core.home import Home
from tasks import logged_models
from tasks.logged_models import SavedPolicy, log_models
from tasks.track import Tracker

ROW = {"benchmark": "six", "metric": "avg@2", "value": 0.5, "low": 0.25, "high": None, "iteration": 1}


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    client = MlflowClient(Home(tmp_path).mlflow_uri)
    experiment = client.create_experiment("reval", artifact_location=(tmp_path / "artifacts").as_uri())
    return Tracker(client, client.create_run(experiment, run_name="run_a").info.run_id)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `log_models` asks of a run, with two saved policies of which the second is evaluated."""
    for name in ("pol_1", "pol_2"):
        (tmp_path / "policies" / name).mkdir(parents=True)
    run = SimpleNamespace(
        run_id="run_a", home=Home(tmp_path), record=SimpleNamespace(base_policy_id="pol_0"), saved=["pol_1", "pol_2"]
    )
    monkeypatch.setattr(
        logged_models,
        "_saved",
        lambda run: [SavedPolicy(name, int(name[-1]), run.home.policies / name) for name in run.saved],
    )
    rows = [ROW | {"policy_id": "pol_2", "created_at": datetime(2026, 1, 1)}]
    monkeypatch.setattr(logged_models, "current_evaluations", lambda run: rows)
    return run


def models(tracker: Tracker) -> dict[str, Any]:
    shown = tracker.client.get_run(tracker.mlflow_run_id)
    return {model.name: model for model in tracker.client.search_logged_models([shown.info.experiment_id])}


def test_each_folder_is_one_model_however_often_it_is_asked(run: Any, tracker: Tracker) -> None:
    for _ in range(2):
        log_models(run, tracker)
    found = models(tracker)
    assert sorted(found) == ["pol_1", "pol_2"]
    assert {model.status for model in found.values()} == {LoggedModelStatus.READY}
    assert found["pol_2"].tags["reval.folder"] == "policies/pol_2"
    assert found["pol_2"].params == {"policy_id": "pol_2", "rounds": "2", "base_policy_id": "pol_0"}
    outputs = tracker.client.get_run(tracker.mlflow_run_id).outputs.model_outputs
    assert sorted((output.model_id, output.step) for output in outputs) == sorted(
        (found[f"pol_{rounds}"].model_id, rounds) for rounds in (1, 2)
    )


def test_a_model_has_the_evaluations_of_its_policy_and_the_run_has_none_twice(run: Any, tracker: Tracker) -> None:
    points = [logged_models.evaluation_points([row])[0] for row in logged_models.current_evaluations(run)]
    tracker.client.log_batch(tracker.mlflow_run_id, metrics=points)  # as `track` does
    for _ in range(2):
        log_models(run, tracker)
    found = models(tracker)
    measured = {(metric.key, metric.step, metric.value) for metric in found["pol_2"].metrics}
    assert measured == {("eval/six/avg_at_2", 2, 0.5), ("eval/six/avg_at_2/low", 2, 0.25)}
    assert not found["pol_1"].metrics
    history = tracker.client.get_metric_history(tracker.mlflow_run_id, "eval/six/avg_at_2")
    assert [(point.step, point.value) for point in history] == [(2, 0.5)]


def test_a_model_goes_with_its_folder(run: Any, tracker: Tracker) -> None:
    log_models(run, tracker)
    shutil.rmtree(run.home.policies / "pol_1")
    run.saved = ["pol_2"]
    log_models(run, tracker)
    assert sorted(models(tracker)) == ["pol_2"]


def test_what_a_killed_attempt_began_is_finished(run: Any, tracker: Tracker) -> None:
    shown = tracker.client.get_run(tracker.mlflow_run_id)
    tracker.client.create_logged_model(
        shown.info.experiment_id, name="pol_1", source_run_id=tracker.mlflow_run_id, model_type="policy"
    )
    log_models(run, tracker)
    found = models(tracker)
    assert sorted(found) == ["pol_1", "pol_2"]
    assert found["pol_1"].status == LoggedModelStatus.READY
