"""The command line as a process, with Prefect's embedded server: killed, asked to end, interrupted, gone on."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from small_run import CANARY, Finished, changed, lineage, responses, rows, train

from reval_core.config import Config
from reval_core.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]
START_S, END_S = 480, 240
"""Generous limits, for machines that are busy."""


LOOPBACK_ONLY = """
import socket

connect = socket.socket.connect


def guarded(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a call to {address} left this machine")
    return connect(self, address)


socket.socket.connect = guarded
from flows.cli import main

main()
"""
"""The command line, in a process that may talk to nobody outside."""


def start(config: Path, home: Home) -> subprocess.Popen[str]:
    """`reval train` on the configuration, its output on a pipe."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-c", LOOPBACK_ONLY, "train", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home.root.parent,
        start_new_session=True,
        # Ctrl-C is ignored by what a shell without job control has put into the background, and by all that it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(home.root.parent)]),
            "REVAL_HOME": str(home.root),
            "HF_TOKEN": CANARY,
        },
    )


def output_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process printed up to a line that has the text."""
    shown, deadline = "", time.monotonic() + START_S
    assert process.stdout is not None
    for line in process.stdout:
        shown += line
        if text in line:
            return shown
        assert time.monotonic() < deadline, shown
    raise AssertionError(f"{text!r} never came:\n{shown}")


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal; exit code and last output. Every process that it had started ends with it."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert children  # Prefect's server, at least
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does on Ctrl-C
    else:
        process.send_signal(number)
    shown, _ = process.communicate(timeout=END_S)
    _, alive = psutil.wait_procs(children, timeout=END_S)
    assert alive == [], shown
    return process.returncode, shown


def in_prefect(home: Home) -> dict[str, list[tuple[str, ...]]]:
    """What Prefect's own database shows of flow runs (name, tags) and task runs (name, state, their attempt's tag)."""
    with closing(sqlite3.connect(home.prefect / "prefect.db", timeout=60)) as database:
        flows = database.execute("SELECT name, tags FROM flow_run ORDER BY start_time").fetchall()
        tasks = database.execute(
            "SELECT t.name, t.state_name, f.tags FROM task_run AS t JOIN flow_run AS f ON f.id = t.flow_run_id"
        ).fetchall()
    return {
        "flow_run": [(name, tuple(sorted(json.loads(tags)))) for name, tags in flows],
        "task_run": [
            (name, state, next(tag for tag in json.loads(tags) if tag.startswith("attempt:")))
            for name, state, tags in tasks
        ],
    }


def wait_until_recorded(home: Home, iteration: int, attempt: int) -> None:
    """Prefect's server writes task runs down from events, some time after they ended."""
    wanted = {(f"{stage} {iteration}", "Completed", f"attempt:{attempt}") for stage in STAGES}
    deadline = time.monotonic() + START_S
    while not wanted <= set(in_prefect(home)["task_run"]):
        assert time.monotonic() < deadline, in_prefect(home)
        time.sleep(0.2)


STAGES = ("generate", "verify", "score", "persist", "learn")
ONE_ROUND_ENGINE = """
import time
from itertools import count

from reval_core.rollouts.transformers_engine import TransformersEngine

rounds = count()


class OneRound(TransformersEngine):
    def sample(self, requests, settings):
        if next(rounds):  # a process samples one round; a signal finds the next one under way, however late it comes
            time.sleep(3600)
        yield from super().sample(requests, settings)
"""


def test_a_run_outlives_its_processes(
    small: Config, finished: Finished, home: Home, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.yaml"
    config = changed(small, "evaluation.before=false", "rollouts.engine.use=one_round_engine:OneRound")
    path.write_text(config.to_yaml())
    (home.root.parent / "one_round_engine.py").write_text(ONE_ROUND_ENGINE)
    monkeypatch.syspath_prepend(home.root.parent)

    process = start(path, home)
    output_until(process, "iteration   0 of 4")
    wait_until_recorded(home, 0, attempt=1)
    code, _ = end(process, signal.SIGKILL)
    assert code == -signal.SIGKILL

    process = start(path, home)
    shown = output_until(process, "iteration   1 of 4")
    assert "iteration   0 of 4" not in shown
    wait_until_recorded(home, 1, attempt=2)
    code, shown = end(process, signal.SIGTERM)
    assert (code, "Traceback" in shown) == (130, False), shown
    assert "Ended. The same command goes on where it stopped." in shown

    process = start(path, home)
    output_until(process, "iteration   2 of 4")
    code, shown = end(process, signal.SIGINT)
    assert (code, "Traceback" in shown) == (130, False), shown
    assert "Ended. The same command goes on where it stopped." in shown

    statuses = [row["status"] for row in rows(home, "SELECT status FROM attempts ORDER BY attempt")]
    assert statuses == ["crashed", "cancelled", "cancelled"]
    run_id = rows(home, "SELECT run_id FROM runs")[0]["run_id"]
    shown = in_prefect(home)
    tags = [tuple(sorted(["reval", f"run:{run_id}", f"attempt:{attempt}"])) for attempt in (1, 2, 3)]
    assert shown["flow_run"] == [(f"train {run_id}", named) for named in tags]
    assert {(f"{stage} 0", "Completed", "attempt:1") for stage in STAGES} <= set(shown["task_run"])
    assert {(f"{stage} 1", "Completed", "attempt:2") for stage in STAGES} <= set(shown["task_run"])

    # the root goes on elsewhere, half done and without anything of Prefect's
    elsewhere = Home(home.root.parent / "elsewhere")
    shutil.copytree(home.root, elsewhere.root, ignore=shutil.ignore_patterns("prefect"))
    home = elsewhere
    process = start(path, home)
    shown, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0, shown
    assert f"run {run_id} goes on at round 3 of 4" in shown
    flow_run, *more = in_prefect(home)["flow_run"]
    assert (more, flow_run[1]) == ([], tuple(sorted(["reval", f"run:{run_id}", "attempt:4"])))
    done = train(config, home)
    assert done.executed == ()
    assert lineage(home, done.run_id) == lineage(finished.home, finished.outcome.run_id)
    assert responses(home) == responses(finished.home)
    weights = "model.safetensors"
    assert (done.checkpoint / weights).read_bytes() == (finished.outcome.checkpoint / weights).read_bytes()
    holding = [file for file in home.root.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    assert holding == []
