"""Settings of Prefect and MLflow that make both embedded: no server to start, no outbound calls, all under one root.

They are environment variables read when the libraries are imported, so this module imports neither and is called first.
Whatever the user has set already (a Prefect server, a tracking server) stays.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from reval_core.errors import ConfigError, RevalError
from reval_core.exclusive import exclusive
from reval_core.home import Home
from tasks.served import served_at

T = TypeVar("T")

API_URL = "PREFECT_API_URL"
TAG = "reval"
"""The tag of our flow runs and deployments."""
START_S = 300.0
"""Seconds that Prefect's server has to start; it takes a few on a machine that is not busy."""
END_S = 30.0
"""Seconds that it has to end."""
_NO_ADDRESS = re.compile(r"\?|%[0-9A-Fa-f]{2}")


def configure(home: Home) -> None:
    """Point Prefect and MLflow at the root, unless the environment says otherwise.

    Where `reval serve` is at work for the root, Prefect is its server.

    Raises:
        ConfigError: the root's name cannot stand in the address of their databases.
    """
    if _NO_ADDRESS.search(str(home.root)):
        raise ConfigError(
            f"The root {home.root} has a '?' or a '%' with two digits in its name, which addresses of Prefect's and "
            "MLflow's databases would read as something else. Name another folder in REVAL_HOME."
        )
    home.root.mkdir(parents=True, exist_ok=True)
    served = served_at(home)
    if served is not None:
        os.environ.setdefault(API_URL, served.api)
    settings = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # who holds a device outlives the server, which in a terminal's run ends with it
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "reval_core,tasks,flows",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_CLI_PROMPT": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # seven tries by default, four minutes a call; the store has everything, so a round need not wait for a server
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if API_URL not in os.environ:
        # the embedded server ends with the process, before late log lines reach it; they are in the attempt's log file
        settings["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
        # a failed stage ends the run and is told once, by the command line, not once for each task and flow around it
        settings["PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL"] = "CRITICAL"
        settings["PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL"] = "CRITICAL"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """One process at a time in the block: the migrations that make Prefect's and MLflow's databases must not meet."""
    with exclusive(home.root / "services.lock"):
        yield


@contextmanager
def prefect_server(home: Home, meanwhile: Callable[[], T] | None = None) -> Iterator[T | None]:
    """Prefect's server for the block, unless the environment names one by PREFECT_API_URL; flow runs are tagged ours.

    Prefect would start one by itself. That one shares our terminal, so Ctrl-C ends it before the run has told it of its
    own end, and a run that is killed leaves it behind; this one has a session of its own and ends with us.

    Args:
        home: the root.
        meanwhile: called while the server starts, such as to load what takes as long; the block is given its result.

    Raises:
        RevalError: it did not start.
    """
    with ExitStack() as stack:
        address, log = "", home.logs / "prefect-server.log"
        if API_URL in os.environ:
            done = meanwhile() if meanwhile else None
        else:
            with alone(home):
                process = stack.enter_context(_server_process(log))
                done = meanwhile() if meanwhile else None
                address = _first_line(process, START_S)
            if not address:
                raise _not_started(process, log)
        from prefect import tags  # after it began to start: this takes as long
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        if address:
            stack.enter_context(_address(address))
            # a server that ends with us needs no sign of life, and the flow would wait up to a second for its thread
            stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
        with tags(TAG):
            yield done


@contextmanager
def _server_process(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server while the block runs; closing its standard input asks it to end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _first_line(process: subprocess.Popen[bytes], limit_s: float) -> str:
    """What the process prints first; nothing when it ended, or printed nothing in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], limit_s)
    return process.stdout.readline().decode().strip() if ready else ""


def _not_started(process: subprocess.Popen[bytes], log: Path) -> RevalError:
    """One that ended has named its error in the log."""
    way_out = f"Start again, or set {API_URL} to the address of a server that runs."
    try:
        code = process.wait(2.0)
    except subprocess.TimeoutExpired:
        return RevalError(f"Prefect's embedded server did not start within {START_S:g} s; {log} says why. {way_out}")
    told = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", told, re.MULTILINE)
    why = errors[-1] if errors else f"exit code {code}"
    return RevalError(f"Prefect's embedded server ended while it started: {why}\nThe whole log: {log}. {way_out}")


@contextmanager
def _address(address: str) -> Iterator[None]:
    """Let Prefect, in every thread, talk to the server at the address."""
    from prefect.context import refresh_global_settings_context

    os.environ[API_URL] = address
    refresh_global_settings_context()
    try:
        yield
    finally:
        del os.environ[API_URL]
        refresh_global_settings_context()
