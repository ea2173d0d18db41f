"""Prefect's server on PostgreSQL, as docs/postgresql.md sets it up: many flow runs at once, and a training run."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from small_run import changed, rows

from reval_core.config import Config
from reval_core.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]
START_S, RUN_S = 240, 480
"""Generous limits, for machines that are busy."""
FLOWS, TASKS = 6, 20
PASSWORD = "0815-of-the-test"


def binaries() -> Path:
    """The folder of PostgreSQL's programs: Debian's newest, or that of the `postgres` on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL server on this machine: apt install postgresql")
    return Path(found).parent


def unprivileged() -> str | None:
    """PostgreSQL refuses root; the user that it runs as instead, None for ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def until(holds: Callable[[], Any], limit_s: float = START_S) -> Any:
    """What the function gives, once that is true."""
    deadline = time.monotonic() + limit_s
    while not (result := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return result


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The block, then the end of the process."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_S)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL cluster of our own on 127.0.0.1; the address of its database ``prefect``."""
    programs, user, port = binaries(), unprivileged(), free_port()
    with tempfile.TemporaryDirectory(prefix="reval-postgresql-") as folder, ExitStack() as stack:
        password = Path(folder, "password")
        password.write_text(PASSWORD)
        if user is not None:
            for path in (Path(folder), password):
                shutil.chown(path, user)
        data = str(Path(folder, "data"))
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", password]
        subprocess.run([*initdb, "--no-sync"], check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)
        postgres = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
        log = stack.enter_context(open(Path(folder, "log"), "wb"))
        stack.enter_context(ended(subprocess.Popen(postgres, stdout=log, stderr=log, user=user, cwd=folder)))
        there = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
        until(lambda: subprocess.run([programs / "pg_isready", *there], stdout=subprocess.DEVNULL).returncode == 0)
        role = f"CREATE ROLE prefect LOGIN PASSWORD '{PASSWORD}'"  # an ordinary one, as in the documentation
        for command in (["psql", *there, "-qc", role], ["createdb", *there, "-O", "prefect", "prefect"]):
            subprocess.run([programs / command[0], *command[1:]], check=True, env={"PGPASSWORD": PASSWORD})
        yield f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{port}/prefect"


@dataclass(frozen=True)
class Server:
    """Prefect's server: the settings of its clients, and its log."""

    environment: dict[str, str]
    log: Path

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment = {
        **kept,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
    }
    up = Server(environment, home / "server.log")
    with ExitStack() as stack:
        log = stack.enter_context(open(up.log, "wb"))
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        there = {**environment, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        stack.enter_context(ended(subprocess.Popen(command, env=there, stdout=log, stderr=log)))
        with SyncPrefectClient(up.api) as client:
            until(lambda: client.api_healthcheck() is None)
        yield up


MANY = f"""
import asyncio
from prefect import flow, tags, task

@task
def one(number: int) -> int:
    return number

@flow(flow_run_name="flow {{number}}")
async def few(number: int) -> int:
    return sum(future.result() for future in one.map(range({TASKS})))

async def many() -> None:
    sums = await asyncio.gather(*(few(number) for number in range({FLOWS})))
    assert sums == [sum(range({TASKS}))] * {FLOWS}

with tags("run:many"):
    asyncio.run(many())
"""


def test_many_flow_runs_at_once_are_recorded_without_an_error(server: Server) -> None:
    subprocess.run([sys.executable, "-c", MANY], check=True, env=server.environment, timeout=RUN_S)
    with SyncPrefectClient(server.api) as client:
        flow_runs = client.read_flow_runs()
        # The server writes task runs down from events, some time after the flow is over.
        until(lambda: [run.state_name for run in client.read_task_runs()] == ["Completed"] * (FLOWS * TASKS))
    assert [(run.name, run.state_name, run.tags) for run in sorted(flow_runs, key=lambda run: run.name)] == [
        (f"flow {number}", "Completed", ["run:many"]) for number in range(FLOWS)
    ]
    assert "ERROR" not in server.log.read_text()


def test_a_run_trains_on_such_a_server(small: Config, server: Server, tmp_path: Path) -> None:
    home, path = Home(tmp_path / "root"), tmp_path / "small.yaml"
    path.write_text(changed(small, "run.iterations=1").to_yaml())
    command = [sys.executable, "-c", "from flows.cli import main; main()", "train", str(path)]
    there = {**server.environment, "REVAL_HOME": str(home.root)}
    there["PREFECT_HOME"] = str(home.prefect)
    done = subprocess.run(command, env=there, timeout=RUN_S, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = rows(home, "SELECT run_id FROM runs")
    with SyncPrefectClient(server.api) as client:
        (flow_run,) = (found for found in client.read_flow_runs() if f"run:{run['run_id']}" in found.tags)
    assert flow_run.state_name == "Completed"
    assert not (home.prefect / "prefect.db").exists()
    assert PASSWORD not in server.log.read_text() + done.stdout + done.stderr
