"""The embedded services: started by one process at a time, and a failed start is told at once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reval_core.errors import ConfigError, RevalError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from tasks.services import alone, configure, prefect_server

ROOT = Path(__file__).parents[2]
WAITING = """
import sys
from pathlib import Path
from reval_core.home import Home
from tasks.services import alone
print("waiting", flush=True)
with alone(Home(Path(sys.argv[1]))):
    print("in", flush=True)
"""


def test_one_process_at_a_time_makes_the_databases(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with alone(home):
        other = subprocess.Popen(
            [sys.executable, "-c", WAITING, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == "in\n"


@pytest.mark.long
@pytest.mark.slow
def test_a_server_that_cannot_start_is_told_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    (home.prefect / "prefect.db").mkdir(parents=True)  # in the place of its database
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(home.prefect))
    told = r"ended while it started: .*unable to open database file\nThe whole log: .*prefect-server\.log"
    with pytest.raises(RevalError, match=told), prefect_server(home):
        pytest.fail("the block ran without a server")
    assert "Fatal Python error" not in (home.logs / "prefect-server.log").read_text()


@pytest.mark.parametrize("name", ["job%2Fmain", "what?"])
def test_a_root_whose_name_an_address_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    """SQLAlchemy would open mlflow.db in another folder."""
    with pytest.raises(ConfigError, match=r"Name another folder in REVAL_HOME"):
        configure(Home(tmp_path / name))
    assert not (tmp_path / name).exists()


LEAVES_A_CHILD = """
import subprocess, sys
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    print(process.pid, flush=True)
    process.wait()
"""
"""A program that SIGTERM ends at once, unlike its child."""


def test_what_a_program_has_started_ends_although_the_program_was_faster() -> None:
    quick = "from tasks import lifeline; lifeline.END_S = 0.5; lifeline.main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", quick, sys.executable, "-c", LEAVES_A_CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = ProcessIdentity.of(int(process.stdout.readline()))
        process.stdin.close()
        process.wait(timeout=60)
    assert child.is_alive() is False


def test_a_program_that_ends_by_itself_is_told_with_its_own_exit_code() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tasks.lifeline", sys.executable, "-c", "raise SystemExit('why')"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:
        assert process.stderr is not None
        assert (process.wait(timeout=60), process.stderr.read()) == (1, "why\n")
