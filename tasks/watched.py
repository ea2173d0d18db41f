"""The worker's side of the watcher (`tasks.watcher`): what it is told, and what its end of a stage means here.

The watcher asks by SIGTERM, as a person may. Its record, beside the attempt's log, tells the two apart: with one, the
stage and the attempt have failed, and say why; without, somebody has cancelled them.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from reval_core.errors import RevalError
from reval_core.home import Home
from reval_core.upkeep import LimitsConfig
from tasks.ended import Ended, read_record, record_path
from tasks.ending import ASKED_TO_END

log = logging.getLogger(__name__)

EVENT = "stage ended by the watcher"
"""Kind of the event in the store."""
PROGRESS_S = 1.0
"""Seconds between two messages of progress at least."""
END_S = 5.0
"""Seconds that the watcher has to end; it takes milliseconds."""


class StageEnded(RevalError):
    """The watcher ended a stage that was stuck or too large; the same command goes on with it."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.message)
        self.ended = ended


@contextmanager
def told_apart(record: Path) -> Iterator[None]:
    """Make a failure of an end that the watcher has asked for; an end that a person asked for stays one.

    Raises:
        StageEnded: it was the watcher.
    """
    try:
        yield
    except ASKED_TO_END:
        ended = read_record(record)
        if ended is None:
            raise
        raise StageEnded(ended) from None


def watched(watch: Watch | None, stage: str, iteration: int) -> AbstractContextManager[None]:
    """Let the watcher, where there is one, hold a stage to its limits while the block runs."""
    return nullcontext() if watch is None else watch.stage(stage, iteration)


class Watch:
    """A run's line to its watcher. The process starts with the first stage and ends when the line is closed.

    Args:
        home: the root.
        run_id, attempt: who is watched.
        limits: when a stage is stuck or too large.
    """

    def __init__(self, home: Home, run_id: str, attempt: int, limits: LimitsConfig) -> None:
        self.record = record_path(home, run_id, attempt)
        self._errors = home.logs / "watcher.log"
        self._setup = {
            "worker": os.getpid(),
            "log": str(home.logs / run_id / f"attempt-{attempt}.jsonl"),
            "record": str(self.record),
            "grace_s": limits.grace_s,
            "retries": limits.retries,
        }
        self._limits = limits
        self._stage_s: dict[str, float] = {stage: seconds for stage, seconds in limits.stage_s.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0.0

    @contextmanager
    def stage(self, name: str, iteration: int) -> Iterator[None]:
        """Let the watcher hold a stage to its limits while the block runs.

        Raises:
            StageEnded: it has ended the stage.
        """
        limits = self._limits
        stage_s = self._stage_s.get(name)
        if limits.stalled_s is None and limits.memory_gb is None and stage_s is None:
            yield
            return
        self._start()
        self._tell(
            stage=name,
            iteration=iteration,
            stalled_s=limits.stalled_s,
            stage_s=stage_s,
            memory_gb=limits.memory_gb,
        )
        with told_apart(self.record):
            try:
                yield
            finally:
                self._tell(stage=None)

    def progress(self) -> None:
        """The stage gets on: its time without progress begins anew."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_S:
            self._told = now
            self._tell(progress=True)

    def close(self) -> None:
        """End the watcher."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            process.kill()
            process.wait()

    def _start(self) -> None:
        if self._process is not None:
            return
        paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        with open(self._errors, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.watcher", json.dumps(self._setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # what ends or stops the worker from a terminal leaves it alone
            )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # a watcher that does not read must not hold the run up

    def _tell(self, **message: Any) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), json.dumps(message).encode() + b"\n")
        except OSError as error:
            log.warning("the watcher does not answer (%s); the next stage starts another", error)
            self._process.kill()
            self.close()
