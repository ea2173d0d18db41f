"""The watcher: a small process beside the worker that ends it when a stage is stuck or too large.

    python -P -m tasks.watcher SETUP

SETUP is JSON: {"worker": pid, "log": path, "record": path, "grace_s": seconds, "retries": n}; the worker is the process
that starts it. Standard input is the line from the worker, and its end that of the watcher. One JSON object a line:

    {"stage": "learn", "iteration": 3, "stalled_s": 1800, "stage_s": null, "memory_gb": null}    a stage begins
    {"progress": true}                                                                           it gets on
    {"stage": null}                                                                              it has ended

When a limit is passed, a record is written beside the attempt's log, and the worker is asked to end by SIGTERM; if it
has not closed the line after the grace, it and its children are killed. The watcher ends when the line is closed. It
imports Python's standard library, psutil and `reval_core.process` alone, so that it starts fast and stays small.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from reval_core.process import started

LOOK_S = 0.5
"""Seconds between two looks at the worker."""
END_S = 10.0
"""Seconds that children of a killed worker have to end by themselves; Prefect's server needs about five."""
LINES, LINE, TAIL = 20, 2_000, 1 << 16
"""Last lines of the log that are kept, characters of each, and the bytes of the log's end that are read."""
PAUSED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass
class Stage:
    """A stage that is under way. Times are seconds of one clock, memory is in GB."""

    stage: str
    iteration: int
    stalled_s: float | None
    stage_s: float | None
    memory_gb: float | None
    begun: float
    renewed: float

    def wait(self, seconds: float) -> None:
        """Seconds that do not count, because the worker was paused."""
        self.begun += seconds
        self.renewed += seconds

    def why_end(self, now: float, held_gb: float) -> str | None:
        """What limit is passed, in words; None while there is none."""
        if self.memory_gb is not None and held_gb > self.memory_gb:
            return f"its processes held {held_gb:.2f} GB of memory, limits.memory_gb is {self.memory_gb:g}"
        if self.stalled_s is not None and now - self.renewed > self.stalled_s:
            return f"no progress in {now - self.renewed:.0f} s, limits.stalled_s is {self.stalled_s:g}"
        if self.stage_s is not None and now - self.begun > self.stage_s:
            return f"it took over {now - self.begun:.0f} s, limits.stage_s of {self.stage} is {self.stage_s:g}"
        return None


@dataclass
class Line:
    """The line from the worker, read with a limit of time."""

    descriptor: int
    open: bool = True
    _rest: bytes = field(default=b"", repr=False)

    def messages(self, wait_s: float) -> list[dict[str, Any]]:
        """What has come, after at most so many seconds."""
        if not select.select([self.descriptor], [], [], wait_s)[0]:
            return []
        chunk = os.read(self.descriptor, 1 << 16)
        self.open = bool(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def main() -> None:
    """Watch the process that started this one, until it closes the line."""
    setup = json.loads(sys.argv[1])
    if os.getppid() != setup["worker"]:  # it has ended already
        return
    worker, line = psutil.Process(setup["worker"]), Line(sys.stdin.fileno())
    stage: Stage | None = None
    looked = time.monotonic()
    while line.open and is_there(worker):
        for message in line.messages(LOOK_S):
            stage = told(stage, message, time.monotonic())
        before, looked = looked, time.monotonic()
        if stage is None or not line.open:
            continue
        if is_paused(worker):
            stage.wait(looked - before)
        held_gb = memory_gb(worker) if stage.memory_gb is not None else 0.0
        why = stage.why_end(looked, held_gb)
        if why is not None:
            end(worker, line, setup, stage, why, held_gb)
            return


def told(stage: Stage | None, message: Mapping[str, Any], now: float) -> Stage | None:
    """The stage that is under way after a message."""
    if "progress" in message:
        if stage is not None:
            stage.renewed = now
        return stage
    return Stage(**message, begun=now, renewed=now) if message["stage"] else None


def is_there(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended, and was not asked for its exit code yet, does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def is_paused(process: psutil.Process) -> bool:
    """Whether somebody has stopped it, as Ctrl-Z does."""
    with suppress(psutil.NoSuchProcess):
        return process.status() in PAUSED
    return False


def family(worker: psutil.Process) -> list[psutil.Process]:
    """Its children and theirs, but for this process."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in worker.children(recursive=True) if child.pid != os.getpid()]
    return []


def memory_gb(worker: psutil.Process) -> float:
    """Resident memory of the worker and its children; a page that two of them share counts twice."""
    held = 0
    for process in (worker, *family(worker)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            held += process.memory_info().rss
    return held / 1e9


def end(worker: psutil.Process, line: Line, setup: Mapping[str, Any], stage: Stage, why: str, held_gb: float) -> None:
    """Record why, ask the worker to end, and kill it when it does not."""
    now = time.monotonic()
    record = {
        "stage": stage.stage,
        "iteration": stage.iteration,
        "why": why,
        "seconds": round(now - stage.begun, 1),
        "without_progress_s": round(now - stage.renewed, 1),
        "held_gb": round(held_gb or memory_gb(worker), 3),
        "limits": {name: getattr(stage, name) for name in ("stalled_s", "stage_s", "memory_gb")},
        "grace_s": setup["grace_s"],
        "retries": setup["retries"],
        "pid": worker.pid,
        "process_started": started(worker.pid),
        "killed": False,
        "last_log_lines": last_lines(Path(setup["log"])),
    }
    write(Path(setup["record"]), record)
    children = family(worker)
    with suppress(psutil.NoSuchProcess):
        worker.terminate()
    deadline = now + setup["grace_s"]
    while line.open and is_there(worker) and time.monotonic() < deadline:
        line.messages(min(LOOK_S, max(0.0, deadline - time.monotonic())))
    if not line.open:  # closed in order, or by the end of the worker, which then is a moment away
        psutil.wait_procs([worker], timeout=LOOK_S)
    if not is_there(worker):
        end_children(children)  # it may have had no time to end them, and one that holds a device would keep it
        return
    if not line.open:
        return
    write(Path(setup["record"]), record | {"killed": True, "last_log_lines": last_lines(Path(setup["log"]))})
    kill(worker)


def kill(worker: psutil.Process) -> None:
    """Kill the worker, and its children when they do not follow it by themselves."""
    children = family(worker)
    with suppress(psutil.NoSuchProcess):
        worker.kill()
    end_children(children)


def end_children(children: list[psutil.Process]) -> None:
    """Give the children of a worker that is gone time to follow it, and kill the others.

    A number that was used anew is another process to psutil, which then kills nothing.
    """
    _, left = psutil.wait_procs(children, timeout=END_S)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record as a whole or not at all; a full disk must not keep the worker alive."""
    aside = path.with_name(path.name + ".part")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        print(f"the record {path} could not be written: {error}", file=sys.stderr, flush=True)


def last_lines(path: Path) -> list[str]:
    """The end of an attempt's log, an entry a line: time, level, message, and a traceback's last line."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"the log {path} could not be read: {error}"]
    return [_shown(line) for line in lines[-LINES:]]


def _shown(line: str) -> str:
    try:
        entry = json.loads(line)
        text = f"{entry['time']} {entry['level']} {entry['message']}"
    except (ValueError, KeyError, TypeError):  # cut off at the front, or no entry of ours
        text = line
    return text if len(text) <= LINE else text[:LINE] + "…"


if __name__ == "__main__":
    main()
