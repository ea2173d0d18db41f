"""What `reval serve` brings up, all on 127.0.0.1: Prefect's server, MLflow's UI, and a runner with the deployments.

Each is the service's own program in a process of its own; all end with this one, also where it is killed. Under
REVAL_HOME stands a file with the server's address, so that a run that is started in a terminal shows up in the same UI.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient

from reval_core.errors import ConfigError, RevalError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store
from tasks.again import show_gone
from tasks.automations import install
from tasks.runner import read_entries
from tasks.served import Served, announce, served_at, withdraw
from tasks.services import API_URL, alone

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
READY = "runner.ready"
"""Made by the runner, under the root, once its deployments are on the server."""
TOLD = {
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
}
"""What runs say is read in the UI."""
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""They are nine processes more, for things that a training run has not."""
HEARTBEAT_S, DEAD_AFTER_S = 30, 120
"""Seconds between two signs of life of a run, and without one until it counts as dead."""
LATE_AFTER_S = 120
"""Seconds after its time when a run that has not begun counts as late; a worker's polling takes up to 15."""
START_S = 300.0
"""Seconds that a service has to start; migrations of a first start take most of them on a busy machine."""


@contextmanager
def serving(
    home: Home,
    *,
    deployments: Path,
    port: int,
    mlflow_port: int,
    grace_s: float,
    limit: int | None,
    webhook: str | None,
) -> Iterator[tuple[Served, subprocess.Popen[bytes]]]:
    """Bring everything up; gives the addresses and the runner, and ends all of it after the block.

    Args:
        home: the root.
        deployments: a file in the format of prefect.yaml.
        port: of Prefect's server; not used where PREFECT_API_URL names one that runs.
        mlflow_port: of MLflow's UI; not used where MLFLOW_TRACKING_URI names a server.
        grace_s: seconds that runs have to end when this ends.
        limit: runs at once; None: as many as come.
        webhook: address that is told of breaches and of failed, crashed and late runs.

    Raises:
        ConfigError: the file cannot be used, a port is taken, or the root is served already.
        RevalError: a service did not start.
    """
    read_entries(deployments)
    already = served_at(home)
    if already is not None:
        raise ConfigError(f"{home.root} is served already, at {already.ui} by process {already.process.pid}.")
    with ExitStack() as stack:
        api = os.environ.get(API_URL)
        if api is None:
            api = f"http://{HOST}:{port}/api"
            _check_port(port, "--port")
            stack.enter_context(_prefect_server(home, port, api))
        os.environ[API_URL] = api
        stack.callback(os.environ.pop, API_URL, None)
        mlflow = stack.enter_context(_mlflow_ui(home, mlflow_port))
        with SyncPrefectClient(api) as client:
            install(client, webhook=webhook, heartbeat_s=HEARTBEAT_S, dead_after_s=DEAD_AFTER_S)
            store = Store(home.database)
            store.prepare()
            show_gone(client, store)
        runner = stack.enter_context(_runner(home, deployments, grace_s, limit))
        served = Served(api, api.removesuffix("/api"), mlflow, ProcessIdentity.mine())
        announce(home, served)
        stack.callback(withdraw, home)
        yield served, runner


@contextmanager
def _prefect_server(home: Home, port: int, api: str) -> Iterator[None]:
    program = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    settings = {"PREFECT_UI_API_URL": api, "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": str(LATE_AFTER_S)}
    with ExitStack() as stack:
        with alone(home):
            process = stack.enter_context(_service("prefect-server", program, home, settings))
            _wait_until_it_answers(process, f"{api}/health", "Prefect's server", home.logs / "prefect-server.log")
        yield


@contextmanager
def _mlflow_ui(home: Home, port: int) -> Iterator[str | None]:
    """MLflow's UI on the root's tracking store, and its address."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith("http"):
        yield None
        return
    _check_port(port, "--mlflow-port")
    program = [
        *(sys.executable, "-P", "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", tracking or home.mlflow_uri),
        *("--default-artifact-root", str(home.mlflow_artifacts)),
    ]
    address = f"http://{HOST}:{port}"
    with ExitStack() as stack:
        with alone(home):  # while it makes its database
            process = stack.enter_context(_service("mlflow", program, home, WITHOUT_JOBS))
            _wait_until_it_answers(process, f"{address}/health", "MLflow's UI", home.logs / "mlflow.log")
        yield address


@contextmanager
def _runner(home: Home, deployments: Path, grace_s: float, limit: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """The deployments, and what runs them."""
    ready = home.root / READY
    ready.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tasks.runner", str(deployments), "--ready", str(ready)]
    if limit is not None:
        program += ["--limit", str(limit)]
    with _service("runner", program, home, TOLD, runs_first_s=grace_s) as process:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise _not_started(process, "The runner", home.logs / "runner.log")
            time.sleep(0.1)
        ready.unlink()
        yield process


@contextmanager
def _service(
    name: str, program: list[str], home: Home, settings: Mapping[str, str], *, runs_first_s: float = 0.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A program with its own session and log file, which Ctrl-C does not reach and which ends with this process."""
    home.logs.mkdir(parents=True, exist_ok=True)
    lifeline = [sys.executable, "-P", "-m", "tasks.lifeline", "--runs-first", str(runs_first_s)]
    with open(home.logs / f"{name}.log", "ab") as output:
        process = subprocess.Popen(
            [*lifeline, *program],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(settings),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **settings}


def _check_port(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"Port {port} of {HOST} is taken. Choose another with {option}.") from error


def _wait_until_it_answers(process: subprocess.Popen[Any], url: str, what: str, log_file: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise _not_started(process, what, log_file)


def _not_started(process: subprocess.Popen[Any], what: str, log_file: Path) -> RevalError:
    """A program that ended has said why in its last line."""
    if process.poll() is None:
        return RevalError(f"{what} did not start within {START_S:g} s; {log_file} says how far it came.")
    last = log_file.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    return RevalError(f"{what} did not start: {last}\nThe whole log: {log_file}")
