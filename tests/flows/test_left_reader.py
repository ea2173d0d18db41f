"""A reader that leaves, as in `reval train ... | head`: the run goes on, and is no failed one."""

import os
import subprocess

import pytest
from served_site import ROOT, reval
from small_run import ROUNDS, changed, rows, value

from reval_core.config import Config
from reval_core.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.long]


def environment(home: Home) -> dict[str, str]:
    kept = {name: told for name, told in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**kept, "REVAL_HOME": str(home.root), "PYTHONPATH": str(ROOT)}


def with_nobody_reading(config: Config, home: Home, *, errors: bool) -> subprocess.CompletedProcess[str]:
    """`reval train` into a pipe that nobody reads any more; with ``errors``, what goes to standard error, too."""
    file = home.root.parent / "small.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes):
        return subprocess.run(
            reval("train", file),
            stdout=writes,
            stderr=writes if errors else subprocess.PIPE,
            text=True,
            check=False,
            env=environment(home),
        )


def test_a_run_goes_on_when_nobody_reads_its_output_any_more(small: Config, home: Home) -> None:
    done = with_nobody_reading(small, home, errors=False)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert told == "WARNING nobody reads the output any more; the work goes on without it"
    assert value(home, "SELECT rounds_done FROM runs") == ROUNDS
    longer = changed(small, f"run.iterations={ROUNDS + 1}")
    assert with_nobody_reading(longer, home, errors=True).returncode == 0  # as `reval train ... 2>&1 | head`
    assert value(home, "SELECT rounds_done FROM runs") == ROUNDS + 1
    file = home.root.parent / "small.yaml"
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *reval("train", file)]
    subprocess.run(closed, check=True, stderr=subprocess.PIPE, env=environment(home))
    assert {row["status"] for row in rows(home, "SELECT status FROM attempts")} == {"completed"}
