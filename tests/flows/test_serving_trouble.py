"""`reval serve` in trouble: what a webhook is told, what was switched in the UI and stays, and kill -9 of it all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from served_site import LIMIT_S, Site, run_id_of, serving, wait_for
from small_run import BATCH, value

from reval_core.config import Config

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """Messages of a webhook by their ids, and under "url" its address."""
    messages: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages[message["id"]] = message
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    messages["url"] = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield messages
    server.shutdown()


@pytest.fixture(scope="module")
def site(
    small: Config,
    benchmark_file: Path,
    problem_file: Path,
    told: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """One run at a time, and a webhook."""
    folder = tmp_path_factory.mktemp("troubled")
    with serving(small, benchmark_file, problem_file, folder, "--limit", "1", "--webhook", told["url"]) as made:
        yield made


def message_of(told: dict[str, Any], what: str, flow_run: str | None = None) -> dict[str, Any]:
    """The message of the kind that has come, or comes."""

    def look() -> dict[str, Any] | None:
        for message in [one for key, one in list(told.items()) if key != "url"]:
            if message["what"] == what and (flow_run is None or str(message["url"]).endswith(flow_run)):
                return dict(message)
        return None

    return dict(wait_for(look))


def schedules(site: Site, deployment: str) -> list[dict[str, Any]]:
    return list(site.call("GET", f"/deployments/name/{deployment}").json()["schedules"])


def test_the_webhook_is_told_of_a_breach_a_failed_a_crashed_and_a_late_run(site: Site, told: dict[str, Any]) -> None:
    always = {"health": {"truncated_share": {"above": -1.0, "rounds": 1}}}
    run_id = run_id_of(site.done("train/quickstart", settings={"run": {"iterations": 1}, **always}))
    breach = message_of(told, "breach")
    assert (breach["run"], breach["breach"]["metric"]) == (run_id, "truncated_share")

    failing = site.start("train/quickstart", config="nowhere.yaml")
    site.until(failing, "FAILED")
    assert "no configuration file nowhere.yaml" in message_of(told, "failed", failing)["message"]

    long = site.start("train/quickstart", settings={"run": {"seed": 51, "iterations": 500}})
    process = site.process_of(long)
    late = site.start("train/quickstart", settings={"run": {"seed": 52, "iterations": 1}})
    assert message_of(told, "late", late)["run"] is None  # the one place is taken for as long as a run may be late

    process.kill()
    site.until(long, "CRASHED")
    assert message_of(told, "crashed", long)["run"] == run_id_of(site.run(long))
    site.until(late, "COMPLETED")


def test_what_was_switched_or_added_in_the_ui_outlasts_a_new_start_and_a_changed_file_is_followed(site: Site) -> None:
    deployment = site.call("GET", "/deployments/name/train/nightly").json()["id"]
    path = f"/deployments/{deployment}/schedules"
    (nightly,) = schedules(site, "train/nightly")
    assert not nightly["active"]
    site.call("PATCH", f"{path}/{nightly['id']}", {"active": True})
    added = {"schedule": {"cron": "0 12 * * *", "timezone": "UTC"}, "active": True, "parameters": {"add_iterations": 3}}
    assert site.call("POST", path, [added]).status_code == 201
    site.bring_down()
    site.bring_up()
    found = {schedule["slug"]: schedule for schedule in schedules(site, "train/nightly")}
    assert found.keys() == {"nightly", None}
    assert found["nightly"]["active"]
    assert (found[None]["schedule"]["cron"], found[None]["parameters"]) == ("0 12 * * *", {"add_iterations": 3})

    file = site.folder / "prefect.yaml"
    offered = yaml.safe_load(file.read_text(encoding="utf-8"))
    for entry in offered["deployments"]:
        for schedule in entry.get("schedules", []):
            schedule["active"] = entry["name"] == "store"
    file.write_text(yaml.safe_dump(offered), encoding="utf-8")
    site.bring_down()
    site.bring_up()
    assert schedules(site, "maintain/store")[0]["active"]  # the file says something else than at the last start
    assert {schedule["active"] for schedule in schedules(site, "train/nightly")} == {True}  # and here the same

    runs = wait_for(lambda: [run for run in site.call("POST", "/flow_runs/filter", {}).json() if run["auto_scheduled"]])
    assert {run["state_name"] for run in runs} == {"Scheduled"}  # Prefect's scheduler works with what is installed


def test_kill_9_of_serve_leaves_nothing_running_and_its_run_is_retried_after_the_next_start(site: Site) -> None:
    flow_run = site.start("train/quickstart", settings={"run": {"seed": 61, "iterations": 15}})
    process = site.process_of(flow_run)
    run_id = site.run_id(flow_run)
    wait_for(lambda: site.rounds(run_id) >= 2)
    family = [process, *psutil.Process(site.process.pid).children(recursive=True)]
    assert len(family) > 6  # the run, three services, and a lifeline of each
    site.process.kill()
    site.process.wait(LIMIT_S)
    _, left = psutil.wait_procs(family, timeout=LIMIT_S)
    assert left == []
    assert site.rounds(run_id) < 15

    site.bring_up()
    site.until(flow_run, "CRASHED")
    site.set_state(flow_run, "SCHEDULED", "AwaitingRetry")
    assert run_id_of(site.until(flow_run, "COMPLETED")) == run_id
    stored = "SELECT count(*) AS n, count(DISTINCT trajectory_id) AS d FROM run_trajectories WHERE run_id = $r"
    assert value(site.home, f"SELECT n = d AND n = {15 * BATCH} FROM ({stored})", r=run_id)
