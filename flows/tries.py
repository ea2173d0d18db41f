"""A run whose stage the watcher ended is tried again, in a fresh process and by the same command.

The process that the command started stays behind, small, and the work is done in a child of it: a worker that had to be
killed cannot start anything any more. It forks before any of the heavy libraries is loaded, which takes no time and
no memory, and what the child then imports is as fresh as in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console

from reval_core.errors import RevalError
from reval_core.home import Home
from reval_core.process import started
from reval_core.upkeep import LimitsConfig
from tasks.ended import Ended, read_record

PAUSE_S = 10.0
"""Seconds before the first new try, give or take a half; each further pause is twice as long."""
_PR_SET_PDEATHSIG = 1
_ASKED = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class _Worker:
    """A child that does the work."""

    pid: int
    started: float

    def end(self, home: Home) -> Ended | None:
        """Why the watcher ended it; None when it did not."""
        for path in home.logs.glob("*/attempt-*.ended.json"):
            ended = read_record(path)
            if ended and (ended.pid, ended.process_started) == (self.pid, self.started):
                return ended
        return None


def in_fresh_processes(home: Home, limits: LimitsConfig) -> None:
    """Return in a child process, at most 1 + limits.retries times, each time in another; the caller never returns.

    A process that has loaded the libraries already (a notebook, a test) cannot be forked well and does the work itself.

    Raises:
        RevalError: this is no Linux.
    """
    if sys.platform != "linux":
        raise RevalError(
            f"ReVal trains on Linux, whose kernel ends a process with the one that started it; this is {sys.platform}. "
            "Use a Linux machine, virtual machine or container."
        )
    if limits.retries == 0 or "torch" in sys.modules:
        return
    for tried in range(limits.retries + 1):
        worker = _fork()
        if worker is None:
            return
        code = _wait(worker.pid)
        ended = worker.end(home)
        if ended is None or tried == limits.retries:
            _leave(code, ended)
        pause = PAUSE_S * 2**tried * random.uniform(0.5, 1.5)
        if code < 0:
            _say(ended.message)
        _say(f"Trying again in {pause:.0f} s, in a fresh process (try {tried + 1} of {limits.retries}).")
        time.sleep(pause)


def _fork() -> _Worker | None:
    """A new child; None in the child. The kernel ends the child with its parent, however that ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)  # until `_wait` can pass them on
    pid = os.fork()
    if pid:
        return _Worker(pid, started(pid))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    return None


def _wait(pid: int) -> int:
    """The child's exit code, or minus the signal that ended it. It gets our SIGTERM; Ctrl-C reaches it by itself."""
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number)),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(code: int, ended: Ended | None) -> NoReturn:
    """End as the child did; what it could not say any more is said here."""
    if code < 0:
        name = signal.Signals(-code).name
        _say(ended.message if ended else f"The process was ended by {name}; the system does so when memory runs out.")
        _say("The same command goes on where it stopped.")
    sys.exit(128 - code if code < 0 else code)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, emoji=False).print(text, markup=False, style="yellow", soft_wrap=True)
