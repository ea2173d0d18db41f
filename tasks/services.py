"""Settings of Prefect and MLflow that make both embedded: no server to start, no outbound calls, all under one root.

They are environment variables read when the libraries are imported, so this module imports neither and is called first.
Whatever the user has set already (a Prefect server, a tracking server) stays.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from reval_core.home import Home
from tasks import watcher

_watched: dict[int, subprocess.Popen[bytes]] = {}
"""Process id of an embedded server to its watcher, whose pipe has to stay open as long as we live."""


def configure(home: Home) -> None:
    """Point Prefect and MLflow at the root, unless the environment says otherwise."""
    home.root.mkdir(parents=True, exist_ok=True)
    settings = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "reval_core,tasks,flows",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_CLI_PROMPT": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": home.mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if "PREFECT_API_URL" not in os.environ:
        # the embedded server ends with the process, before late log lines reach it; they are in the attempt's log file
        settings["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def watch_server() -> None:
    """See to it that Prefect's embedded server, where this process has started one, ends with this process."""
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer().server_process
    if server is None or server.poll() is not None or server.pid in _watched:
        return
    _watched[server.pid] = subprocess.Popen(
        [sys.executable, "-P", watcher.__file__, str(server.pid), repr(psutil.Process(server.pid).create_time())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C does not reach it
    )
