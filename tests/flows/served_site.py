"""A root that `reval serve` serves, and the calls that Prefect's UI makes of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from small_run import changed, rows, value

from reval_core.config import Config
from reval_core.home import Home

ROOT = Path(__file__).parents[2]
LIMIT_S = 480.0
"""Generous: machines are busy."""
GRACE_S = 120.0
"""Seconds that runs have to end: a busy machine may need a minute for what else takes two."""
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
    ports: tuple[int, int]
    api: httpx.Client
    process: subprocess.Popen[str] = field(init=False)

    def bring_up(self, *options: str) -> None:
        """Start `reval serve` on what is there, and wait until it is up."""
        log = self.folder / "serve.log"
        kept = {name: told for name, told in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        port, mlflow_port = self.ports
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                reval(
                    *("serve", "--deployments", self.folder / "prefect.yaml", "--port", port),
                    *("--mlflow-port", mlflow_port, "--grace", GRACE_S, *options),
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
                env={**kept, "REVAL_HOME": str(self.home.root), "PYTHONPATH": str(ROOT)},
            )
        wait_for(lambda: "Ctrl-C" in log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, log.read_text()

    def bring_down(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait(LIMIT_S)

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

    def until_after(self, flow_run: str, state: str, *states: str) -> dict[str, Any]:
        """The flow run in one of the states, after it has left the one that it is in."""
        wait_for(lambda: self.run(flow_run)["state_type"] != state)
        return self.until(flow_run, *states)

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


@contextmanager
def serving(small: Config, benchmark_file: Path, problem_file: Path, folder: Path, *options: str) -> Iterator[Site]:
    """Everything up, with ReVal's own deployments on the small run's configuration."""
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
    port = free_port()
    # a connection is used again for a second only: the server closes it after five, perhaps just as we ask
    fresh = httpx.Limits(keepalive_expiry=1.0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=120, limits=fresh) as api:
        made = Site(Home(folder / "root"), folder, (port, free_port()), api)
        made.bring_up(*options)
        yield made
        made.bring_down()
