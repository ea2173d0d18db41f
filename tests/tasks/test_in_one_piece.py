"""A signal in the middle of a write of MLflow leaves nothing of it undone, and nothing locked."""

import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tasks.track import in_one_piece


def test_a_write_that_meets_a_signal_is_finished_and_the_next_one_finds_no_lock(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run(client.create_experiment("here", artifact_location=tmp_path.as_uri())).info.run_id
    met = []

    def interrupt(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("INSERT INTO latest_metrics"):  # after that of the metrics themselves
            met.append(statement)
            signal.raise_signal(signal.SIGINT)

    event.listen(Engine, "before_cursor_execute", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), in_one_piece(client):
            client.log_batch(run_id, metrics=[Metric("loss", 0.5, 0, 3)])
    finally:
        event.remove(Engine, "before_cursor_execute", interrupt)
    assert met
    with in_one_piece(client):
        client.set_terminated(run_id, "KILLED")
    told = client.get_run(run_id)
    assert (told.info.status, told.data.metrics) == ("KILLED", {"loss": 0.5})
