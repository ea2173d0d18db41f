"""The artifact of a run: what stands on it, that there is one for each flow run, and that a run needs none."""

import json
import os
import re
import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

import flows.train
import tasks.artifact
import tasks.report
from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.errors import HealthError
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems
from tasks.artifact import _mlflow, artifact_key, page, show_artifact
from tasks.open_run import open_run
from tasks.progress import Progress
from tasks.run import Here
from tasks.services import configure, prefect_server

ROUNDS = 2
CANARY = "canary-in-an-address"


@dataclass
class Made:
    """Two rounds of a run that knows nothing, in a root."""

    config: Config
    home: Home
    run_id: str


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect as `configure` sets it up; taken back at the end."""
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    configure(Home(tmp_path_factory.mktemp("services")))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Runs without MLflow and the report's plots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.train, "tracking", nullcontext)
        patch.setattr(flows.train, "track", lambda run, tracker: None)
        patch.setattr(flows.train, "log_models", lambda run, tracker: None)
        patch.setattr(flows.train, "log_files", lambda tracker, files, folder: None)
        patch.setattr(tasks.report, "draw", lambda run: {})
        patch.setattr(tasks.report, "FIGURES", ())
        yield


@pytest.fixture(scope="module")
def config(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two rounds of two prompts with two responses each, which are all wrong."""
    problems = tmp_path_factory.mktemp("problems") / "two.jsonl"
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in arithmetic_problems("train")[:2]))
    return parse_config(
        {
            "run": {"name": "Sick.one", "iterations": ROUNDS},
            "model": {"path": str(random_folder), "threads": 1, "device": "cpu"},
            "prompt": {"template": "none"},
            "problems": [{"path": str(problems)}],
            "rollouts": {
                "prompts_per_iteration": 2,
                "rollouts_per_prompt": 2,
                "max_prompt_tokens": 16,
                "max_new_tokens": 4,
            },
            "replay": {"capacity": None},
            "evaluation": {"before": False, "after": False, "benchmarks": [str(problems)], "samples_per_problem": 1},
            "tracking": {"system_metrics": False},
            "health": {
                "all_wrong_share": {"above": 0.5, "rounds": 1},
                "truncated_share": {"then": "ignore"},
                "free_disk_gb": {"then": "ignore"},
            },
        }
    )


@pytest.fixture(scope="module")
def made(config: Config, quick: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The run, made without Prefect."""
    home = Home(tmp_path_factory.mktemp("made"))
    return Made(config, home, flows.train.train.fn(config, home, Progress(quiet=True)).run_id)


def markdown(made: Made) -> str:
    with open_run(made.config, made.home, progress=Progress(quiet=True)) as run:
        return page(run)


# -- what stands on it ------------------------------------------------------------------------------------------------


def test_the_page_tells_the_rounds_what_was_out_of_bounds_and_where_the_rest_is(made: Made) -> None:
    text = markdown(made)
    assert text.startswith(f"# {made.run_id}\n\n**2 of 2 rounds** · accuracy 0.000 · reward 0.000 · residual ")
    assert " · 8 responses · " in text
    assert "| all_wrong_share | 2 | 0 | 1 | 1 | 0.5 | warn |" in text
    head, rule, newest, oldest = text[text.index("| round |") :].splitlines()[:4]
    assert head == (
        "| round | accuracy | reward | residual | staleness | tokens | generate | verify | score | persist | learn |"
    )
    assert rule.count("|") == head.count("|") == newest.count("|") == 12
    assert newest.startswith("| 1 | 0.000 | 0.000 | ")
    assert oldest.startswith("| 0 | 0.000 | 0.000 | ")
    assert "–" not in newest
    assert f"- Report: `{made.home.reports / made.run_id / 'report.html'}`" in text
    assert f"- Store: `{made.home.database}`" in text
    assert f"export REVAL_HOME={made.home.root}" in text
    assert f"mlflow ui --backend-store-uri {made.home.mlflow_uri}" in text


def test_the_learning_curve_is_a_picture_in_the_page(made: Made) -> None:
    (picture,) = re.findall(r"!\[Learning curve\]\(data:image/png;base64,([\w+/=]+)\)", markdown(made))
    data = b64decode(picture)
    assert data.startswith(b"\x89PNG")
    assert len(data) < 60_000


def test_a_long_run_shows_its_newest_rounds(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.artifact, "ROUNDS_SHOWN", 1)
    text = markdown(made)
    assert "## The newest 1 of 2 rounds" in text
    assert "\n| 1 | 0.000" in text
    assert "\n| 0 | 0.000" not in text


def test_mlflow_is_a_link_where_it_has_an_address_and_shows_no_password() -> None:
    assert _mlflow("http://me:secret@host:5000/", "abc") == "[http://host:5000](http://host:5000/#/runs/abc)"
    assert _mlflow("https://host", None) == "https://host"
    assert _mlflow("sqlite:////srv/mlflow.db", "abc") == "`mlflow ui --backend-store-uri sqlite:////srv/mlflow.db`"
    assert CANARY not in _mlflow(f"postgresql://me:{CANARY}@host/db", "abc")


def test_a_key_has_the_letters_that_prefect_takes() -> None:
    assert artifact_key("Sick.one_2-1134c9fd") == "reval-sick-one-2-1134c9fd"


# -- the outage -------------------------------------------------------------------------------------------------------


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_away_is_told_and_stops_nothing(
    made: Made, environment: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    under_way = SimpleNamespace(flow_run=SimpleNamespace(id=uuid4()))
    monkeypatch.setattr(tasks.artifact, "FlowRunContext", SimpleNamespace(get=lambda: under_way))
    address = f"http://me:{CANARY}@127.0.0.1:{closed_port()}/api"
    with (
        open_run(made.config, made.home, progress=Progress(quiet=True)) as run,
        temporary_settings({PREFECT_API_URL: address}),
    ):
        show_artifact(Here(run, 1))
    assert "the artifact could not be written (ConnectError" in caplog.text
    assert "the next round catches up" in caplog.text
    assert CANARY not in caplog.text


def test_outside_a_flow_run_there_is_none(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr(tasks.artifact, "page", written.append)
    with open_run(made.config, made.home, progress=Progress(quiet=True)) as run:
        show_artifact(Here(run, 1))
    assert written == []


# -- on a real server -------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Prefect's server for the block."""

    address: str

    def artifacts(self) -> list[dict[str, Any]]:
        keyed = {"key": {"exists_": True}}  # Prefect has artifacts of its own for results
        return self._ask("artifacts/filter", {"artifacts": keyed, "sort": "CREATED_DESC"})

    def events(self) -> list[dict[str, Any]]:
        name = {"name": ["reval.health.breach"]}
        found = self._ask("events/filter", {"filter": {"event": name, "order": "ASC"}})
        return found["events"]

    def _ask(self, path: str, what: dict[str, Any]) -> Any:
        return httpx.post(f"{self.address}/{path}", json=what, timeout=120).raise_for_status().json()


@pytest.fixture(scope="module")
def server(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=60.0)  # one that an earlier test began goes on sending to that test's server
    with prefect_server(Home(tmp_path_factory.mktemp("prefect"))):
        yield Server(os.environ["PREFECT_API_URL"])


@pytest.mark.long
def test_each_flow_run_has_one_artifact_under_the_runs_key_and_a_breach_is_an_event(
    config: Config, quick: None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    put: list[UUID] = []
    update = tasks.artifact._put
    monkeypatch.setattr(tasks.artifact, "_put", lambda key, flow, *rest: put.append(flow) or update(key, flow, *rest))
    stopping = config.model_dump(mode="json")
    stopping["health"]["all_wrong_share"] = {"above": 0.5, "rounds": 2, "then": "stop"}
    stopped = flows.train.train(parse_config(stopping), home, Progress(quiet=True), return_state=True)
    with pytest.raises(HealthError):
        stopped.result()
    (first,) = server.artifacts()
    assert first["key"].startswith("reval-sick-one-")
    assert first["type"] == "markdown"
    assert "**2 of 2 rounds**" in first["data"]
    assert "| all_wrong_share | 1 | 1 | 1 | 1 | 0.5 | stop |" in first["data"]  # why it ended
    assert "written at the end of the run" in first["data"]
    assert len(put) == 2  # made after round 0, another text after round 1

    done = flows.train.train(config, home, Progress(quiet=True))
    second, again = server.artifacts()
    assert again["id"] == first["id"]
    assert again["key"] == second["key"] == artifact_key(done.run_id)
    assert second["flow_run_id"] == str(put[-1]) != first["flow_run_id"]
    assert str(done.report) in second["data"]

    # sent by a thread of Prefect's, in order
    told = _eventually(server.events)
    assert [event["payload"] for event in told] == [
        {
            "run_id": done.run_id,
            "iteration": 1,
            "metric": "all_wrong_share",
            "value": 1.0,
            "bound": 0.5,
            "rounds": 2,
            "action": "stop",
            "message": "after round 1 all_wrong_share is 1, above 0.5, the last of 2 rounds in a row out of bounds",
        }
    ]
    assert told[0]["resource"]["prefect.resource.id"] == f"reval.run.{done.run_id}"
    related = {resource["prefect.resource.id"] for resource in told[0]["related"]}
    assert f"prefect.flow-run.{first['flow_run_id']}" in related


def _eventually(ask: Any) -> Any:
    """The first answer that is not empty, within minutes."""

    deadline = time.monotonic() + 240
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
