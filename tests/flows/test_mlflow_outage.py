"""MLflow is a view: a run goes on while its server is away, and catches up when it is back."""

import socket

import pytest
import requests
from small_run import changed, rows, train

from reval_core.config import Config
from reval_core.home import Home
from tasks.track import MlflowClient


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.long
def test_a_run_goes_on_without_its_server_and_catches_up(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = changed(small, "run.iterations=2", f"tracking.uri=http://127.0.0.1:{closed_port()}")
    away = train(config, home)
    assert "MLflow could not be written" in caplog.text
    assert len(rows(home, "SELECT iteration FROM rounds")) == 2

    back = train(changed(config, "tracking.uri=null"), home)
    assert back.run_id == away.run_id
    assert [name for name in back.executed if not name.startswith("report")] == []
    client = MlflowClient(home.mlflow_uri)
    (shown,) = client.search_runs([client.get_experiment_by_name(config.tracking.experiment).experiment_id])
    history = client.get_metric_history(shown.info.run_id, "accuracy")
    assert [point.step for point in history] == [0, 1]


@pytest.mark.long
def test_a_refused_file_ends_no_run(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise requests.HTTPError("413 Client Error: Request Entity Too Large")

    monkeypatch.setattr(MlflowClient, "log_artifact", refused)
    train(changed(small, "run.iterations=1"), home)
    assert "MLflow could not be written (413 Client Error" in caplog.text
    assert [row["status"] for row in rows(home, "SELECT status FROM runs")] == ["completed"]


def test_a_password_in_the_servers_address_is_shown_nowhere(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-in-an-address"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{canary}@127.0.0.1:{closed_port()}")
    done = train(changed(small, "run.iterations=1"), home)
    assert done.mlflow.startswith("http://***@127.0.0.1:")
    printed = capfd.readouterr()
    assert canary not in printed.out + printed.err
    assert [path for path in home.root.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()] == []
