"""`reval serve` for real: server, MLflow's UI and worker; forms, reruns, schedules, cancel, by the calls of the UI."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from small_run import BATCH, ROUNDS, changed, rows, value

from reval_core.config import Config
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0
"""Generous: machines are busy."""
GRACE_S = 30.0
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A root that is served."""

    home: Home
    folder: Path
    process: subprocess.Popen[str]
    api: httpx.Client

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """As Prefect's own clients do, again where SQLite was busy."""
        for _ in range(20):
            answer = self.api.request(method, path, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            time.sleep(0.5)
        return answer

    def ask(self, deployment: str, **parameters: Any) -> httpx.Response:
        """What the form sends."""
        found = self.call("GET", f"/deployments/name/{deployment}").json()
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)

    def start(self, deployment: str, **parameters: Any) -> str:
        """The id of a new flow run."""
        answer = self.ask(deployment, **parameters)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return str(answer.json()["id"])

    def run(self, flow_run: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/flow_runs/{flow_run}").json())

    def until(self, flow_run: str, *states: str) -> dict[str, Any]:
        """The flow run once it is in one of the states; or in any end."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            found = self.run(flow_run)
            if found["state_type"] in {*states, *(ENDED if not states else ())}:
                return found
            if time.monotonic() > deadline or found["state_type"] in ENDED - {*states}:
                went = self.call("GET", f"/flow_run_states/?flow_run_id={flow_run}").json()
                states_told = [f"{one['timestamp']} {one['name']} {one['message']}" for one in went]
                pytest.fail("\n".join([*states_told, *self.log(flow_run)]))
            time.sleep(0.2)

    def done(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """A flow run that has to complete."""
        return self.until(self.start(deployment, **parameters), "COMPLETED")

    def set_state(self, flow_run: str, state: str, name: str | None = None) -> None:
        """What the buttons Retry and Cancel send."""
        body = {"state": {"type": state, "name": name or state.title()}, "force": True}
        assert self.call("POST", f"/flow_runs/{flow_run}/set_state", body).status_code in (200, 201)

    def log(self, flow_run: str) -> list[str]:
        body = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [line["message"] for line in self.call("POST", "/logs/filter", body).json()]

    def process_of(self, flow_run: str) -> psutil.Process:
        """The worker process of a flow run, once it has begun its run."""
        return psutil.Process(wait_for(lambda: self._pid(flow_run)))

    def _pid(self, flow_run: str) -> int | None:
        if not self.home.database.exists():
            return None
        found = rows(self.home, "SELECT pid FROM attempts WHERE flow_run_id = $f ORDER BY started_at DESC", f=flow_run)
        return int(found[0]["pid"]) if found else None

    def run_id(self, flow_run: str) -> str:
        """Our run, once the flow run is tagged with it."""
        wait_for(lambda: any(tag.startswith("run:") for tag in self.run(flow_run)["tags"]))
        return run_id_of(self.run(flow_run))

    def rounds(self, run_id: str) -> int:
        return int(value(self.home, "SELECT rounds_done FROM runs WHERE run_id = $r", r=run_id))


def wait_for(look: Callable[[], Any]) -> Any:
    """What a look finds, once it finds something."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def reval(*arguments: object) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)]


def run_id_of(found: dict[str, Any]) -> str:
    return next(str(tag).removeprefix("run:") for tag in found["tags"] if tag.startswith("run:"))


@pytest.fixture(scope="module")
def site(
    small: Config, benchmark_file: Path, problem_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Everything up, with ReVal's own deployments on the small run's configuration."""
    folder = tmp_path_factory.mktemp("served")
    problems = folder / "problems"
    problems.mkdir()
    (problems / "first.jsonl").write_bytes(problem_file.read_bytes())
    config = changed(small, f"evaluation.benchmarks=['{benchmark_file}']", f"problems.0.path={problems}")
    (folder / "small.yaml").write_text(config.to_yaml(), encoding="utf-8")
    offered = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in offered["deployments"]:
        if "config" in deployment.get("parameters", {}):
            deployment["parameters"]["config"] = str(folder / "small.yaml")
    (folder / "prefect.yaml").write_text(yaml.safe_dump(offered), encoding="utf-8")
    home, port = Home(folder / "root"), free_port()
    kept = {name: told for name, told in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    process = subprocess.Popen(
        reval(
            *("serve", "--deployments", folder / "prefect.yaml"),
            *("--port", port, "--mlflow-port", free_port(), "--grace", GRACE_S),
        ),
        stdout=open(folder / "serve.log", "w"),  # noqa: SIM115
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**kept, "REVAL_HOME": str(home.root), "PYTHONPATH": str(ROOT)},
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=60) as api:
        made = Site(home, folder, process, api)
        wait_for(lambda: "Ctrl-C" in (folder / "serve.log").read_text() or process.poll() is not None)
        assert process.poll() is None, (folder / "serve.log").read_text()
        yield made
    process.terminate()
    process.wait(LIMIT_S)


@pytest.fixture(scope="module")
def trained(site: Site) -> dict[str, Any]:
    """The flow run of a whole training."""
    return site.done("train/quickstart")


def test_a_wrong_value_is_refused_at_the_form_with_its_field_named(site: Site) -> None:
    for wrong, field in (
        ({"settings": {"objective": {"beta": -1}}}, "settings.objective.beta"),
        ({"settings": {"objective": {"bta": 1}}}, "bta"),
        ({"settings": {"rollouts": {"prompts_per_iteration": "many"}}}, "settings.rollouts.prompts_per_iteration"),
        ({"add_iterations": 0}, "add_iterations"),
    ):
        answer = site.ask("train/quickstart", **wrong)
        assert answer.status_code == httpx.codes.CONFLICT
        assert field in answer.json()["detail"]
    answer = site.ask("rerun/stage", run_id="x", from_stage="score")
    assert answer.status_code == httpx.codes.CONFLICT
    assert "from_stage" in answer.json()["detail"]


def test_a_training_is_named_tagged_logged_and_stored(site: Site, trained: dict[str, Any]) -> None:
    run_id = run_id_of(trained)
    assert trained["name"] == f"train {run_id}"
    assert site.rounds(run_id) == ROUNDS
    wait_for(lambda: any(line.startswith("calibration") for line in site.log(trained["id"])))
    again = site.done("train/quickstart")
    assert run_id_of(again) == run_id
    wait_for(lambda: any("was done already" in line for line in site.log(again["id"])))


def test_retry_of_a_killed_run_goes_on_without_sampling_again(site: Site) -> None:
    flow_run = site.start("train/quickstart", settings={"run": {"seed": 11, "iterations": 30}})
    process = site.process_of(flow_run)
    run_id = site.run_id(flow_run)
    wait_for(lambda: site.rounds(run_id) >= 2)
    process.kill()
    site.until(flow_run, "CRASHED")
    before = {
        row["trajectory_id"]
        for row in rows(site.home, "SELECT trajectory_id FROM run_trajectories WHERE run_id = $r", r=run_id)
    }
    site.set_state(flow_run, "SCHEDULED", "AwaitingRetry")
    ended = site.until(flow_run, "COMPLETED")
    assert ended["run_count"] == 2
    after = rows(site.home, "SELECT trajectory_id FROM run_trajectories WHERE run_id = $r", r=run_id)
    assert len(after) == 30 * BATCH
    assert before <= {row["trajectory_id"] for row in after}
    assert (
        value(site.home, "SELECT count(DISTINCT trajectory_id) FROM run_trajectories WHERE run_id = $r", r=run_id)
        == 30 * BATCH
    )


def test_cancel_ends_a_run_and_leaves_nothing_of_it(site: Site) -> None:
    flow_run = site.start("train/quickstart", settings={"run": {"seed": 12, "iterations": 200}})
    process = site.process_of(flow_run)
    run_id = site.run_id(flow_run)
    wait_for(lambda: site.rounds(run_id) >= 1)
    family = process.children(recursive=True)
    assert family  # the graders
    site.set_state(flow_run, "CANCELLING")
    site.until(flow_run, "CANCELLED")
    _, left = psutil.wait_procs([process, *family], timeout=GRACE_S)
    assert left == []
    status = "SELECT status FROM attempts WHERE run_id = $r ORDER BY attempt DESC LIMIT 1"
    assert value(site.home, status, r=run_id) == "cancelled"
    assert not list((site.home.root / "devices").iterdir())
    done = site.rounds(run_id)
    more = {"run": {"seed": 12, "iterations": done + 1}}
    assert run_id_of(site.done("train/quickstart", settings=more)) == run_id


def test_three_firings_of_a_schedule_one_while_the_last_still_runs_and_one_with_nothing_new(site: Site) -> None:
    only = site.folder / "nightly"
    only.mkdir()
    (only / "a.jsonl").write_bytes((site.folder / "problems" / "first.jsonl").read_bytes())
    nightly = {
        "settings": {"run": {"name": "nightly"}, "problems": [{"path": str(only)}]},
        "add_iterations": 6,
    }
    first = site.start("train/nightly", **nightly)
    run_id = site.run_id(first)
    new = arithmetic_problems("train")[1:4]
    (only / "b.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in new), encoding="utf-8")
    second = site.start("train/nightly", **nightly)
    wait_for(lambda: site.run(second)["state_name"] in ("AwaitingConcurrencySlot", "Late"))
    assert site.run(first)["state_type"] == "RUNNING"
    site.until(first, "COMPLETED")
    assert run_id_of(site.until(second, "COMPLETED")) == run_id
    assert site.rounds(run_id) == 12
    third = site.done("train/nightly", **nightly)
    assert third["state_name"] == "Nothing to do"
    assert "nothing is new" in third["state"]["message"]
    assert site.rounds(run_id) == 12
    asked = {
        row["question"]
        for row in rows(
            site.home, "SELECT question FROM run_trajectories WHERE run_id = $r AND iteration = 6", r=run_id
        )
    }
    assert {problem["question"] for problem in new} <= asked


def test_two_devices_work_side_by_side_and_an_evaluation_of_a_busy_one_waits_and_says_for_whom(
    site: Site, trained: dict[str, Any]
) -> None:
    runs = {
        device: site.start(
            "train/quickstart",
            settings={"run": {"seed": 20 + int(device[-1]), "iterations": 12}, "model": {"device": device}},
        )
        for device in ("cpu:1", "cpu:2")
    }
    wait_for(lambda: all((site.home.root / "devices" / f"cpu-{n}.json").exists() for n in (1, 2)))
    assert {site.run(flow_run)["state_type"] for flow_run in runs.values()} == {"RUNNING"}
    evaluation = site.start("evaluate/checkpoint", policy="latest", samples=3, overrides=["model.device=cpu:1"])
    waiting = wait_for(lambda: [line for line in site.log(evaluation) if "waiting for" in line])
    assert "cpu:1, which is held by small (small-" in waiting[0]
    holder = run_id_of(site.run(runs["cpu:1"]))
    assert holder in waiting[0]
    site.until(evaluation, "COMPLETED")
    ended = {device: site.until(flow_run, "COMPLETED") for device, flow_run in runs.items()}
    for found in ended.values():
        assert site.rounds(run_id_of(found)) == 12


def test_every_other_deployment_works_on_what_the_store_holds(site: Site, trained: dict[str, Any]) -> None:
    run_id = run_id_of(trained)
    site.done("learn/offline", trajectories=f"window:{run_id}", settings={"run": {"iterations": 1}})
    query = f"SELECT trajectory_id FROM run_trajectories WHERE run_id = '{run_id}' AND iteration < 2"
    learned = site.done("learn/offline", trajectories=query, settings={"run": {"iterations": 1}})
    assert value(site.home, "SELECT count(*) FROM replay WHERE run_id = $r", r=run_id_of(learned)) == 2 * BATCH
    assert run_id_of(site.done("generate/rollouts", policy="latest")).startswith("generate-")
    site.done("rescore/verdicts", trajectories=f"run:{run_id}", overrides=["reward.extraction=lenient"])
    site.done("evaluate/newest-checkpoint")
    base = str(next((site.home.root / "policies").iterdir()).name)
    site.done("compare/policies", first=base, second="latest", samples=2)
    same = site.done("rerun/stage", run_id=run_id, from_stage="verify", iteration=1)
    assert same["state_name"] == "Nothing to do"
    fork = site.done("rerun/stage", run_id=run_id, from_stage="generate", iteration=3, force=True)
    assert f"fork-of:{run_id}@3" in fork["tags"]
    site.done("maintain/store", backup_to=str(site.folder / "backup"), vacuum=True)
    assert (site.folder / "backup" / "reval.duckdb").exists()
    told = rows(site.home, "SELECT flow, count(*) AS n FROM starts GROUP BY flow ORDER BY flow")
    assert {row["flow"] for row in told} >= {"train", "learn", "generate", "evaluate", "compare", "rerun"}


def test_a_run_of_a_terminal_shows_up_in_the_same_ui(site: Site) -> None:
    kept = {name: told for name, told in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    subprocess.run(
        reval("train", site.folder / "small.yaml", "--set", "run.seed=31", "--set", "run.iterations=1"),
        check=True,
        capture_output=True,
        cwd=ROOT,
        timeout=LIMIT_S,
        env={**kept, "REVAL_HOME": str(site.home.root), "PYTHONPATH": str(ROOT)},
    )
    (run_id,) = {row["run_id"] for row in rows(site.home, "SELECT run_id FROM runs WHERE seed = 31")}
    found = site.call("POST", "/flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"run:{run_id}"]}}}).json()
    assert [run["state_type"] for run in found] == ["COMPLETED"]


def test_the_end_of_serve_ends_its_runs_and_everything_that_it_started(site: Site) -> None:
    flow_run = site.start("train/quickstart", settings={"run": {"seed": 41, "iterations": 500}})
    process = site.process_of(flow_run)
    run_id = site.run_id(flow_run)
    wait_for(lambda: site.rounds(run_id) >= 1)
    family = [process, *psutil.Process(site.process.pid).children(recursive=True)]
    site.process.send_signal(signal.SIGTERM)
    site.process.wait(LIMIT_S)
    _, left = psutil.wait_procs(family, timeout=GRACE_S)
    assert left == []
    status = "SELECT status FROM attempts WHERE run_id = $r ORDER BY attempt DESC LIMIT 1"
    assert value(site.home, status, r=run_id) == "cancelled"
    assert not (site.home.root / "serving.json").exists()
