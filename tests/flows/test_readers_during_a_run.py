"""Others that have the database open while `reval train` runs: it waits for them, or says who is in the way."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import BATCH, changed, rows, sampled, train, value
from test_processes import END_S, ROOT, START_S, start

from reval_core.config import Config
from reval_core.home import Home
from reval_core.store import Store, spool

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROUNDS, LOCK_WAIT_S, SHORT_S = 2, 15.0, 1.5

PACED_ENGINE = """
import os
import time
from itertools import count
from pathlib import Path

from reval_core.rollouts.transformers_engine import TransformersEngine

rounds = count()


class Paced(TransformersEngine):
    def sample(self, requests, settings):
        if "PACE" in os.environ:  # say that the round samples, and wait until it may
            folder, number = Path(os.environ["PACE"]), next(rounds)
            (folder / f"begun-{number}").touch()
            while not (folder / f"go-{number}").exists():
                time.sleep(0.02)
        yield from super().sample(requests, settings)
"""

READER = """
import sys, time
from pathlib import Path
from reval_core.store import Store
store, end, longest, count = Store(sys.argv[1], lock_wait_s=240), Path(sys.argv[2]), 0.0, 0
while not end.exists():
    began = time.monotonic()
    store.query("SELECT count(*) FROM trajectories")
    longest, count = max(longest, time.monotonic() - began), count + 1
    if count == 1:
        print("reading", flush=True)
print(count, longest)
"""

HOLDER = """
import sys, time, duckdb
while True:
    try:
        connection = duckdb.connect(sys.argv[1], read_only=True)
        break
    except duckdb.IOException:
        time.sleep(0.02)
connection.execute("SELECT count(*) FROM trajectories").fetchall()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def others(home: Home) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def program(text: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def held(home: Home, seconds: float) -> subprocess.Popen[str]:
    """A program with a plain DuckDB connection that has the database open now."""
    holder = program(HOLDER, home.database, seconds)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def wait_for(path: Path, run: subprocess.Popen[str]) -> None:
    """Wait until a file or folder is there."""
    deadline = time.monotonic() + START_S
    while not path.exists():
        if run.poll() is not None or time.monotonic() > deadline:
            run.kill()
            pytest.fail(f"{path} did not come:\n{run.communicate()[0]}")
        time.sleep(0.02)


def test_a_run_goes_on_beside_readers_and_names_who_never_lets_go(
    small: Config,
    home: Home,
    quick: None,
    tmp_path: Path,
    others: list[subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paced = changed(
        small,
        f"run.iterations={ROUNDS}",
        "rollouts.engine.use=paced_engine:Paced",
        f"store.lock_wait_s={LOCK_WAIT_S}",
    )
    config = tmp_path / "small.yaml"
    config.write_text(paced.to_yaml())
    (home.root.parent / "paced_engine.py").write_text(PACED_ENGINE)
    monkeypatch.syspath_prepend(home.root.parent)
    kept = Store(home.database).spool
    with monkeypatch.context() as environment:
        environment.setenv("PACE", str(tmp_path))
        run = start(config, home)
    others.append(run)

    # three readers without a pause through our own doors, and a program that has the file open for a while
    wait_for(tmp_path / "begun-0", run)
    readers = [program(READER, home.database, tmp_path / "enough") for _ in range(3)]
    others += readers
    assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["reading\n"] * 3
    others.append(held(home, SHORT_S))
    (tmp_path / "go-0").touch()
    wait_for(tmp_path / "begun-1", run)
    (tmp_path / "enough").touch()
    for reader in readers:
        shown, _ = reader.communicate(timeout=END_S)
        assert reader.returncode == 0
        queries, longest = shown.split()
        assert int(queries) > 1
        print(f"{queries} queries during a round, the longest took {float(longest):.2f} s")

    # a program that does not close it
    holder = held(home, 10_000)
    others.append(holder)
    (tmp_path / "go-1").touch()
    wait_for(kept, run)
    holder.kill()
    shown, _ = run.communicate(timeout=START_S)
    assert run.returncode == 1, shown
    assert "Traceback" not in shown
    message = rf"held by process {holder.pid} \(.*\) for more than {LOCK_WAIT_S:g} s.* {BATCH} responses are safe in"
    assert re.search(message, " ".join(shown.split()))
    assert len(spool.kept(kept)) == 1
    assert value(home, "SELECT count(*) FROM trajectories") == (ROUNDS - 1) * BATCH
    before = {row["trajectory_id"] for row in rows(home, "SELECT trajectory_id FROM trajectories")}

    # the same run goes on with what was kept, and samples none of it again
    with sampled(monkeypatch) as again:
        done = train(paced, home)
    assert again == []
    assert done.rounds == ROUNDS
    assert spool.kept(kept) == []
    found = rows(home, "SELECT trajectory_id, run_id FROM trajectories")
    assert len(found) == len({row["trajectory_id"] for row in found}) == ROUNDS * BATCH
    assert before < {row["trajectory_id"] for row in found}
    generated = "SELECT count(*) FROM store.stages WHERE stage = 'generate'"
    assert value(home, generated) == ROUNDS
    assert value(home, "SELECT count(*) FROM store.leases WHERE pid != 0") == 0
