"""A run whose stage is stuck: ended, recorded, tried again in a fresh process, and the same in the end."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_run import ROUNDS, Finished, changed, crash_at, lineage, responses, rows, train

from reval_core.config import Config
from reval_core.home import Home
from reval_core.process import started
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.store import Store
from tasks.ended import read_record, record_path
from tasks.services import prefect_server
from tasks.watched import EVENT, StageEnded

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
END_S = 480
"""Generous limit, for machines that are busy."""


def watched(small: Config, *overrides: str) -> Config:
    """The small run with a limit that it passes when it is stuck, and not when the machine is merely busy."""
    return changed(small, "limits.stalled_s=20", *overrides)


RECORD = {
    "stage": "generate",
    "iteration": 0,
    "why": "it was stuck",
    "grace_s": 20.0,
    "retries": 1,
    "killed": False,
    "pid": 1,
    "process_started": 0.0,
    "last_log_lines": ["t INFO the last one"],
}


def recorded(home: Home, run_id: str, attempt: int, **changed: Any) -> str:
    """The message of a record that is there now, as the watcher writes it."""
    path = record_path(home, run_id, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RECORD | changed))
    ended = read_record(path)
    assert ended is not None
    return ended.message


def test_an_end_that_the_watcher_asked_for_is_a_failure_and_a_persons_is_not(
    small: Config, home: Home, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "run.iterations=1")

    def interrupted(self: TransformersEngine, requests: Any, settings: Any) -> Iterator[Any]:
        if len(rows(home, "SELECT 1 FROM attempts")) == 1:
            recorded(home, rows(home, "SELECT run_id FROM runs")[0]["run_id"], 1)
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "sample", interrupted)
        with pytest.raises(StageEnded, match=r"generate of round 0 was ended by the watcher: it was stuck\.\nThe last"):
            train(config, home)
        with pytest.raises(KeyboardInterrupt):
            train(config, home)
    assert "generate@0" in train(config, home).executed
    first, second, third = rows(home, "SELECT status, message FROM attempts ORDER BY attempt")
    assert (first["status"], second["status"], third["status"]) == ("failed", "cancelled", "completed")
    assert first["message"].endswith("\nThe last lines of its log:\n  t INFO the last one")
    assert rows(home, "SELECT attempt, iteration, message FROM events WHERE kind = $kind", kind=EVENT) == [
        {"attempt": 1, "iteration": 0, "message": first["message"]}
    ]


def test_what_a_killed_attempt_could_not_record_the_next_one_does_once(
    small: Config, home: Home, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "run.iterations=1")
    with crash_at(monkeypatch, "verify", 0, "before"):
        train(config, home)
    run_id = rows(home, "SELECT run_id FROM runs")[0]["run_id"]
    with subprocess.Popen(["true"]) as gone:
        process_started = started(gone.pid)
    with Store(home.database).write() as connection:
        connection.execute(
            "UPDATE store.attempts SET status = 'running', message = NULL, pid = ?, process_started = ?",
            [gone.pid, process_started],
        )
    message = recorded(home, run_id, 1, killed=True)
    assert "It did not end within 20 s of being asked, and was killed." in message
    for _ in range(2):
        train(config, home)
    first = rows(home, "SELECT status, message FROM attempts ORDER BY attempt")[0]
    assert first == {"status": "failed", "message": message}
    events = rows(home, "SELECT attempt, message FROM events WHERE kind = $kind", kind=EVENT)
    assert events == [{"attempt": 1, "message": message}]


TRIES = """
import json, os, signal, sys, time
from pathlib import Path
from flows import tries
from reval_core.upkeep import LimitsConfig
from reval_core.home import Home
from reval_core.process import started

tries.PAUSE_S = 0.01
home = Home(Path(sys.argv[1]))
tries.in_fresh_processes(home, LimitsConfig(retries=2))
with open(home.root / "pids", "a") as file:
    print(os.getpid(), file=file)


def ended():
    found = json.loads(sys.argv[2]) | {"pid": os.getpid(), "process_started": started(os.getpid())}
    path = home.logs / "run-1" / f"attempt-{os.getpid()}.ended.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def asked(number, frame):
    print("asked to end", flush=True)
    os._exit(130)


signal.signal(signal.SIGTERM, asked)
print("at work", flush=True)
"""


def tried(home: Home, body: str) -> subprocess.Popen[str]:
    """A program that does its work in fresh processes."""
    home.root.mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-c", TRIES + body, str(home.root), json.dumps(RECORD)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("body", "code", "tries", "said"),
    [
        ("print('done')", 0, 1, "done"),
        ("sys.exit(3)", 3, 1, ""),
        ("ended(); sys.exit(1)", 1, 3, "in a fresh process (try 2 of 2)"),
        ("ended(); os.kill(os.getpid(), 9)", 137, 3, "generate of round 0 was ended by the watcher: it was stuck."),
        ("os.kill(os.getpid(), 9)", 137, 1, "The process was ended by SIGKILL"),
    ],
)
def test_a_process_is_followed_by_another_where_the_watcher_ended_it(
    body: str, code: int, tries: int, said: str, home: Home
) -> None:
    process = tried(home, body)
    shown, _ = process.communicate(timeout=END_S)
    assert process.returncode == code, shown
    assert said in shown
    pids = (home.root / "pids").read_text().split()
    assert len(set(pids)) == tries == shown.count("at work")
    assert str(process.pid) not in pids


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_process_that_works_ends_with_the_one_that_waits(number: int, code: int, home: Home) -> None:
    process = tried(home, "time.sleep(600)")
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    (worker,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    shown, _ = process.communicate(timeout=END_S)
    assert process.returncode == code
    assert shown == ("asked to end\n" if number == signal.SIGTERM else "")
    worker.wait(END_S)


SLOW_TO_WAIT = """
import os, signal, sys, time
from pathlib import Path
from flows import tries
from reval_core.upkeep import LimitsConfig
from reval_core.home import Home

wait = tries._wait


def late(pid):
    sys.stdin.readline()
    return wait(pid)


tries._wait = late
tries.in_fresh_processes(Home(Path(sys.argv[1])), LimitsConfig())
signal.signal(signal.SIGTERM, lambda *_: os._exit(130))
print("at work", flush=True)
time.sleep(600)
"""


def test_a_signal_before_the_waiting_begins_is_passed_on_when_it_has(home: Home) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_WAIT, str(home.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    process.communicate("\n", timeout=END_S)
    assert process.returncode == 130


STUCK_ENGINE = """
import itertools
import os
import time
from pathlib import Path

from reval_core.rollouts.transformers_engine import TransformersEngine


class Stuck(TransformersEngine):
    '''Samples three responses of the round that the file names, and nothing more; the next time it goes on.'''

    def sample(self, requests, settings):
        marks = Path(os.environ["REVAL_HOME"]).parent
        for done, sample in enumerate(super().sample(requests, settings)):
            stuck = marks / ("deaf" if (marks / "deaf").exists() else "asleep")
            if done == 3 and stuck.exists():
                stuck.unlink()
                print("stuck", flush=True)
                if stuck.name == "deaf":
                    sum(itertools.repeat(0))  # in C, holding the interpreter: no handler of a signal is run
                time.sleep(600)
            yield sample
"""


def start(config: Config, home: Home, *, pause_s: float = 1.0) -> subprocess.Popen[str]:
    """`reval train` as a process of its own, with a short pause between tries."""
    folder = home.root.parent
    (folder / "small.yaml").write_text(config.to_yaml())
    (folder / "stuck_engine.py").write_text(STUCK_ENGINE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import flows.tries as t, flows.cli as c; t.PAUSE_S = {pause_s}; c.main()",
            "train",
            str(folder / "small.yaml"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
        env={**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "REVAL_HOME": str(home.root)},
    )


def finishes(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output; every process that was seen under it has ended."""
    seen: dict[int, psutil.Process] = {}
    gone = threading.Event()

    def look() -> None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            while not gone.wait(0.2):
                seen.update({child.pid: child for child in parent.children(recursive=True)})

    looking = threading.Thread(target=look)
    looking.start()
    try:
        shown, _ = process.communicate(timeout=END_S)
    finally:
        gone.set()
        looking.join()
    assert len(seen) > 2, shown
    _, left = psutil.wait_procs(list(seen.values()), timeout=END_S)
    assert left == [], shown
    return process.returncode, shown


def states(home: Home, kind: str) -> list[tuple[str, str, str]]:
    """(name, state, message) of Prefect's flow or task runs."""
    with closing(sqlite3.connect(home.prefect / "prefect.db")) as database:
        found = database.execute(
            f"SELECT r.name, s.name, s.message FROM {kind} AS r JOIN {kind}_state AS s ON s.id = r.state_id "
            "ORDER BY r.start_time"
        ).fetchall()
    return [(name.split(" small")[0], state, message or "") for name, state, message in found]


@pytest.mark.long
@pytest.mark.parametrize("how", ["asleep", "deaf"])
def test_a_stuck_run_is_ended_and_the_same_command_finishes_it(
    how: str, small: Config, finished: Finished, home: Home, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = watched(
        small, "rollouts.engine.use=stuck_engine:Stuck", "limits.grace_s=3" if how == "deaf" else "limits.grace_s=60"
    )
    home.root.mkdir(parents=True)
    (home.root.parent / how).touch()
    process = start(config, home)
    code, shown = finishes(process)
    assert code == 0, shown
    words = "generate of round 0 was ended by the watcher: no progress in "
    assert words in shown
    assert "in a fresh process (try 1 of 1)" in shown
    assert f"after {ROUNDS} rounds" in shown
    assert "Traceback" not in shown

    first, second = rows(home, "SELECT status, message, pid FROM attempts ORDER BY attempt")
    assert (first["status"], second["status"]) == ("failed", "completed")
    assert first["message"].startswith(words)
    assert ("and was killed" in first["message"]) == (how == "deaf")
    assert first["pid"] != second["pid"]
    (event,) = rows(home, "SELECT kind, attempt, iteration, message FROM events WHERE kind = $kind", kind=EVENT)
    assert (event["attempt"], event["iteration"], event["message"]) == (1, 0, first["message"])

    flow_runs = states(home, "flow_run")
    assert flow_runs[1][1] == "Completed"
    assert flow_runs[0][1] == ("Failed" if how == "asleep" else "Crashed")
    assert words in flow_runs[0][2]
    if how == "asleep":
        (task,) = [run for run in states(home, "task_run") if run[1] != "Completed"]
        assert task[:2] == ("generate 0", "Failed") and words in task[2]

    monkeypatch.syspath_prepend(home.root.parent)
    done = train(config, home)
    assert done.executed == ()
    assert lineage(home, done.run_id) == lineage(finished.home, finished.outcome.run_id)
    assert responses(home) == responses(finished.home)
    weights = "model.safetensors"
    assert (done.checkpoint / weights).read_bytes() == (finished.outcome.checkpoint / weights).read_bytes()


DEPLOYED = """
import os
import signal

from prefect import flow, get_client
from prefect.context import FlowRunContext

import tasks.again
from reval_core.home import find_home
from tasks.watched import record_path

tasks.again.PAUSE_S = 1.0


@flow(on_failure=[tasks.again.try_again], on_crashed=[tasks.again.try_again])
def work(how: str) -> None:
    run = FlowRunContext.get().flow_run
    with open(find_home().root / "pids", "a") as file:
        print(os.getpid(), file=file)
    if run.run_count > 1 and how != "twice":
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=[f"run:{how}", f"attempt:{run.run_count}"])
    if how != "wrong":
        record = record_path(find_home(), how, run.run_count)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(os.environ["RECORD"])
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError(how)


if __name__ == "__main__":
    work.serve("work")
"""


@pytest.mark.long
def test_a_deployed_run_is_tried_again_in_a_fresh_process(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import get_client
    from prefect.deployments import run_deployment

    monkeypatch.setenv("PREFECT_HOME", str(home.prefect))
    monkeypatch.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    home.root.mkdir(parents=True)
    path = home.root.parent / "deployed.py"
    path.write_text(DEPLOYED)
    wanted = {
        "asked": ["Failed", "AwaitingRetry", "Completed"],
        "killed": ["Crashed", "AwaitingRetry", "Completed"],
        "twice": ["Failed", "AwaitingRetry", "Failed"],
        "wrong": ["Failed"],
    }
    with prefect_server(home), get_client(sync_client=True) as client:
        serving = subprocess.Popen(
            [sys.executable, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "RECORD": json.dumps(RECORD)},
            cwd=home.root.parent,
        )
        try:
            deadline = time.monotonic() + END_S
            while not client.read_deployments():
                assert time.monotonic() < deadline
                time.sleep(0.2)
            given = {how: run_deployment("work/work", parameters={"how": how}, timeout=0).id for how in wanted}
            seen: dict[str, list[str]] = {}
            while seen != wanted and time.monotonic() < deadline:
                time.sleep(0.5)
                for how, flow_run_id in given.items():
                    names = [state.name for state in client.read_flow_run_states(flow_run_id)]
                    seen[how] = [
                        name for name in names if name not in ("Scheduled", "Late", "Pending", "Submitting", "Running")
                    ]
            assert seen == wanted
        finally:
            serving.terminate()
            serving.wait(END_S)
    pids = (home.root / "pids").read_text().split()
    assert len(pids) == len(set(pids)) == 7
