"""`reval serve` for real: server, MLflow's UI and runner; forms, reruns, schedules, cancel, by the calls of the UI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import httpx
import psutil
import pytest
from served_site import LIMIT_S, ROOT, Site, reval, run_id_of, wait_for
from small_run import BATCH, ROUNDS, rows, value

from reval_core.problems.arithmetic import arithmetic_problems

pytestmark = [pytest.mark.slow, pytest.mark.long]


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
    flow_run = site.start("train/quickstart", settings={"run": {"seed": 11, "iterations": 15}})
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
    stuck = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    assert site.call("POST", "/task_runs/filter", stuck).json() == []
    after = rows(site.home, "SELECT trajectory_id FROM run_trajectories WHERE run_id = $r", r=run_id)
    assert len(after) == 15 * BATCH
    assert before <= {row["trajectory_id"] for row in after}
    assert (
        value(site.home, "SELECT count(DISTINCT trajectory_id) FROM run_trajectories WHERE run_id = $r", r=run_id)
        == 15 * BATCH
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
    _, left = psutil.wait_procs([process, *family], timeout=LIMIT_S)
    assert left == []
    status = "SELECT status FROM attempts WHERE run_id = $r ORDER BY attempt DESC LIMIT 1"
    assert value(site.home, status, r=run_id) == "cancelled", site.log(flow_run)
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
    rounds = 30  # so many that both are at work until the evaluation has started, which takes a busy machine a while
    runs = {
        device: site.start(
            "train/quickstart",
            settings={"run": {"seed": 20 + int(device[-1]), "iterations": rounds}, "model": {"device": device}},
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
        assert site.rounds(run_id_of(found)) == rounds


def test_every_other_deployment_works_on_what_the_store_holds(site: Site, trained: dict[str, Any]) -> None:
    run_id = run_id_of(trained)
    site.done("learn/offline", trajectories=f"window:{run_id}", settings={"run": {"iterations": 1}})
    query = f"SELECT trajectory_id FROM run_trajectories WHERE run_id = '{run_id}' AND iteration < 2"
    learned = site.done("learn/offline", trajectories=query, settings={"run": {"iterations": 1}})
    assert value(site.home, "SELECT count(*) FROM replay WHERE run_id = $r", r=run_id_of(learned)) == 2 * BATCH
    assert run_id_of(site.done("generate/rollouts", policy="latest")).startswith("generate-")
    site.done("rescore/verdicts", trajectories=f"run:{run_id}", overrides=["reward.extraction=lenient"])
    evaluated = site.done("evaluate/newest-checkpoint")
    assert evaluated["name"] == "evaluate latest"
    wait_for(lambda: any(line.startswith("evaluated pol_") for line in site.log(evaluated["id"])))
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
    _, left = psutil.wait_procs(family, timeout=LIMIT_S)
    assert left == []
    (last,) = rows(site.home, "SELECT status, message FROM attempts WHERE run_id = $r", r=run_id)
    assert last["status"] == "cancelled", f"{last}\n{(site.home.logs / 'runner.log').read_text()[-3000:]}"
    assert not (site.home.root / "serving.json").exists()
