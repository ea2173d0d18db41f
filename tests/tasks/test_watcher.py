"""The watcher: what it takes for a stuck or too large stage, and how it ends the process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import tasks.watched
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError
from reval_core.home import Home
from reval_core.upkeep import LimitsConfig, StageName
from tasks.ended import read_record, record_path
from tasks.progress import Progress
from tasks.watched import StageEnded, Watch, told_apart
from tasks.watcher import LINE, LINES, Stage, last_lines, told

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
BEGIN = {"stage": "learn", "iteration": 3, "stalled_s": 10.0, "stage_s": 60.0, "memory_gb": 2.0}


def begun(**changed: Any) -> Stage:
    stage = told(None, BEGIN | changed, 100.0)
    assert stage is not None
    return stage


def test_a_stage_is_ended_at_the_first_limit_that_it_passes() -> None:
    stage = begun()
    assert stage.why_end(110.0, 2.0) is None
    assert stage.why_end(110.1, 0.0) == "no progress in 10 s, limits.stalled_s is 10"
    assert stage.why_end(101.0, 2.5) == "its processes held 2.50 GB of memory, limits.memory_gb is 2"
    assert told(stage, {"progress": True}, 155.0) is stage
    assert stage.why_end(160.0, 0.0) is None
    assert stage.why_end(160.5, 0.0) == "it took over 60 s, limits.stage_s of learn is 60"
    assert told(stage, {"stage": None}, 161.0) is None


def test_a_limit_that_is_none_is_never_passed() -> None:
    assert begun(stalled_s=None, stage_s=None, memory_gb=None).why_end(1e9, 1e9) is None


def test_the_time_of_a_paused_process_does_not_count() -> None:
    stage = begun()
    stage.wait(1_000.0)
    assert stage.why_end(1_110.0, 0.0) is None
    assert stage.why_end(1_110.1, 0.0) is not None


def test_progress_outside_a_stage_means_nothing() -> None:
    assert told(None, {"progress": True}, 1.0) is None


def test_the_last_log_lines_are_the_newest_entries_in_short(tmp_path: Path) -> None:
    path = tmp_path / "attempt-1.jsonl"
    assert "could not be read" in last_lines(path)[0]
    entry = {"time": "2026-01-01T00:00:00", "level": "INFO", "logger": "tasks.learn"}
    lines = [json.dumps(entry | {"message": f"update {number}"}) for number in range(30)]
    path.write_text("\n".join([*lines, "no JSON", json.dumps("a text"), "x" * (LINE + 1)]) + "\n")
    found = last_lines(path)
    assert len(found) == LINES
    assert found[-4:] == ["2026-01-01T00:00:00 INFO update 29", "no JSON", '"a text"', "x" * LINE + "…"]


def test_the_limits_name_every_stage() -> None:
    declared = [
        line.split('"')[1]
        for path in (ROOT / "tasks").glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("@stage(")
    ]
    assert set(StageName.__args__) == set(declared)  # type: ignore[attr-defined]
    raw = {"problems": [{"path": "builtin:arithmetic/train"}]}
    known = parse_config(raw | {"limits": {"stage_s": {"learn": 60}}})
    assert known.limits.stage_s == {"learn": 60.0}
    assert known.config_id == parse_config(raw).config_id
    with pytest.raises(ConfigError, match=r"limits\.stage_s\.learning.*'checkpoint'"):
        parse_config(raw | {"limits": {"stage_s": {"learning": 60}}})


WORKER = """
import itertools, os, signal, subprocess, sys, time
from contextlib import closing
from pathlib import Path
from reval_core.upkeep import LimitsConfig
from reval_core.home import Home
from tasks.watched import StageEnded, Watch

signal.signal(signal.SIGTERM, signal.default_int_handler)
limits = LimitsConfig.model_validate_json(sys.argv[2])
silent = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, **silent)
with closing(Watch(Home(Path(sys.argv[1])), "run-1", 2, limits)) as watch:
    watch._start()
    print(watch._process.pid, child.pid, flush=True)
    sys.stdin.readline()  # the test knows them: now they may end
    try:
        with watch.stage("learn", 3):
            BODY
        print("done", flush=True)
    except StageEnded as error:
        print(type(error).__name__, error.ended.why, flush=True)
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
child.kill()
"""
DEAF = "sum(itertools.repeat(0))"
"""A loop in C without an end, which holds the interpreter: no handler of a signal is run."""


class Worker:
    """A process that is watched while it runs the body."""

    def __init__(self, root: Path, body: str, limits: LimitsConfig) -> None:
        self.record = record_path(Home(root), "run-1", 2)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER.replace("BODY", body), str(root), limits.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        watcher, child = map(int, self.process.stdout.readline().split())
        self.watcher, self.child = psutil.Process(watcher), psutil.Process(child)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def is_in_its_stage(self) -> None:
        """Wait until the body says so."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "in\n"

    def ends(self) -> tuple[int, str]:
        """Exit code, and what it printed; the watcher and the child end, too."""
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        _, left = psutil.wait_procs([self.watcher, self.child], timeout=PATIENCE_S)
        assert left == []
        return self.process.returncode, printed


@pytest.mark.slow
def test_a_stuck_worker_is_asked_to_end_and_told_why(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "time.sleep(600)", LimitsConfig(stalled_s=0.3))
    code, printed = worker.ends()
    assert code == 0
    assert printed.startswith("StageEnded no progress in ")
    found = json.loads(worker.record.read_text())
    assert (found["stage"], found["iteration"], found["killed"]) == ("learn", 3, False)
    assert found["pid"] == worker.process.pid
    assert found["seconds"] > 0.3


@pytest.mark.slow
@pytest.mark.long
def test_a_worker_that_does_not_hear_is_killed_with_its_children(tmp_path: Path) -> None:
    log = record_path(Home(tmp_path), "run-1", 2).with_name("attempt-2.jsonl")
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"time": "t", "level": "INFO", "message": "update 7 of 8"}) + "\n")
    worker = Worker(tmp_path, DEAF, LimitsConfig(stalled_s=None, stage_s={"learn": 0.3}, grace_s=0.2))
    code, printed = worker.ends()
    assert (code, printed) == (-signal.SIGKILL, "")
    ended = read_record(worker.record)
    assert ended is not None
    assert ended.message.startswith("learn of round 3 was ended by the watcher: it took over ")
    assert "It did not end within 0.2 s of being asked, and was killed.\n" in ended.message
    assert ended.message.endswith("The last lines of its log:\n  t INFO update 7 of 8")


@pytest.mark.slow
@pytest.mark.long
def test_the_children_of_a_worker_that_ends_at_once_are_ended_too(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(600)"
    worker = Worker(tmp_path, body, LimitsConfig(stalled_s=0.3))
    assert worker.ends() == (-signal.SIGTERM, "")  # and its child, which sleeps in a session of its own
    assert not json.loads(worker.record.read_text())["killed"]


@pytest.mark.slow
def test_a_worker_that_holds_too_much_with_its_children_is_ended(tmp_path: Path) -> None:
    program = "held = bytearray(b'1') * 300_000_000; input()"
    body = f'large = subprocess.Popen([sys.executable, "-c", {program!r}], **silent); large.wait()'
    worker = Worker(tmp_path, body, LimitsConfig(memory_gb=0.25))
    code, printed = worker.ends()
    assert code == 0
    assert printed.startswith("StageEnded its processes held 0.")
    assert json.loads(worker.record.read_text())["held_gb"] > 0.25


@pytest.mark.slow
def test_a_person_ends_a_worker_without_a_record(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 'print("in", flush=True); time.sleep(600)', LimitsConfig())
    worker.is_in_its_stage()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends() == (0, "KeyboardInterrupt\n")
    assert not worker.record.exists()


@pytest.mark.slow
@pytest.mark.long
def test_progress_keeps_a_stage_alive(tmp_path: Path) -> None:
    body = "for _ in range(130): watch.progress(); time.sleep(0.1)"
    worker = Worker(tmp_path, body, LimitsConfig(stalled_s=10.0))
    assert worker.ends() == (0, "done\n")


@pytest.mark.slow
@pytest.mark.long
def test_a_paused_worker_is_left_alone(tmp_path: Path) -> None:
    body = "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)"
    worker = Worker(tmp_path, body, LimitsConfig(stalled_s=4.0))
    stopped = psutil.Process(worker.process.pid)
    while stopped.status() != psutil.STATUS_STOPPED:
        assert worker.process.poll() is None
        time.sleep(0.05)
    time.sleep(6.0)
    assert not worker.record.exists()
    worker.process.send_signal(signal.SIGCONT)
    assert worker.ends()[1].startswith("StageEnded no progress in ")


@pytest.mark.slow
def test_the_watcher_of_a_killed_worker_ends(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "time.sleep(600)", LimitsConfig())
    worker.process.kill()
    worker.process.communicate(timeout=PATIENCE_S)
    worker.watcher.wait(PATIENCE_S)
    assert not worker.record.exists()
    worker.child.kill()


@pytest.mark.slow
def test_a_watcher_that_was_killed_is_replaced_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks.watched, "END_S", PATIENCE_S)
    watch = Watch(Home(tmp_path), "run-1", 1, LimitsConfig())
    with watch.stage("learn", 0):
        first = watch._process
        assert first is not None
        first.kill()
        first.wait()
    assert "the watcher does not answer" in caplog.text
    with watch.stage("learn", 1):
        second = watch._process
        assert second is not None and second.pid != first.pid
    watch.close()
    assert second.returncode == 0
    watch.progress()  # of something after the run


def test_nobody_watches_where_there_is_no_limit(tmp_path: Path) -> None:
    watch = Watch(Home(tmp_path), "run-1", 1, LimitsConfig(stalled_s=None))
    with watch.stage("learn", 0):
        assert watch._process is None
    watch.close()


def test_a_step_of_progress_is_told_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, clock, sent = Watch(Home(tmp_path), "run-1", 1, LimitsConfig()), [100.0], []
    monkeypatch.setattr(tasks.watched.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(watch, "_tell", lambda **message: sent.append(clock[0]))
    progress = Progress(quiet=True)
    progress.on_step = watch.progress
    for clock[0] in (100.0, 100.5, 100.9, 101.0, 101.5, 102.5):
        progress.step("generate", 1, 2)
    assert sent == [100.0, 101.0, 102.5]


def test_an_end_is_the_watchers_where_its_record_is(tmp_path: Path) -> None:
    record = tmp_path / "attempt-1.ended.json"
    with pytest.raises(KeyboardInterrupt), told_apart(record):
        raise KeyboardInterrupt
    known = {"stage": "learn", "iteration": 3, "why": "it was stuck", "grace_s": 20.0, "killed": False, "pid": 1}
    record.write_text(json.dumps(known | {"retries": 1, "process_started": 0.0, "last_log_lines": []}))
    words = r"^learn of round 3 was ended by the watcher: it was stuck\.$"
    with pytest.raises(StageEnded, match=words), told_apart(record):
        raise KeyboardInterrupt
    with pytest.raises(ValueError), told_apart(record):
        raise ValueError
