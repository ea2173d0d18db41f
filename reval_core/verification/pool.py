"""Worker processes with a hard time limit, a memory limit, and nothing shared between them.

Each worker is `python -m reval_core.verification.worker` with two private pipes; the parent polls them,
kills (SIGKILL, whole process group) and starts again. Plain subprocesses were chosen over
multiprocessing's forkserver: it imports __main__ again in every worker, which breaks scripts without
a guard and drags their imports into the memory limit, and its helper processes outlive a killed
parent. The price is a slower start (about a second of CPU for importing sympy instead of 0.2 s), paid in
the background, because a replacement is started the moment a worker is killed. Messages are JSON, never pickles.

A worker dies with its parent by the kernel's doing (PR_SET_PDEATHSIG), also when the parent is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from reval_core.errors import ConfigError, VerificationError

MAX_REPLY_BYTES = 1 << 24
TASKS_PER_WORKER = 2_000
"""A worker is replaced after this many tasks: sympy's caches grow."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a reply, `timeout` (killed at the limit) or `died` (the process ended)."""

    kind: Literal["reply", "timeout", "died"]
    seconds: float
    reply: Mapping[str, Any] = field(default_factory=dict)


class WorkerPool:
    """Up to `workers` processes, started when first needed, usable from any thread.

    serve: what the workers do: {"serve": "math"} or {"serve": "reward", "use": ..., "args": ...}.
    timeout_s: hard limit of wall seconds for one task. memory_gb: address space of one worker in GB.
    start_timeout_s: limit for starting one worker, imports included.
    """

    def __init__(
        self,
        serve: Mapping[str, Any],
        *,
        workers: int = 2,
        timeout_s: float = 2.0,
        memory_gb: float = 2.0,
        start_timeout_s: float = 60.0,
    ) -> None:
        if workers < 1 or timeout_s <= 0 or memory_gb <= 0:
            raise ConfigError(
                "A grading pool needs workers >= 1, timeout_s > 0 and memory_gb > 0, got"
                f" {workers}, {timeout_s}, {memory_gb}."
            )
        self.workers = workers
        self.timeout_s = timeout_s
        self.start_timeout_s = start_timeout_s
        self._setup = {
            **serve,
            "parent": os.getpid(),
            "memory_bytes": int(memory_gb * 1e9),
        }
        self._changed = threading.Condition()
        self._idle: deque[_Worker] = deque()  # right end: warm; left end: still starting
        self._alive: set[_Worker] = set()
        self._waiting = 0
        self._closed = False
        self._starter: ThreadPoolExecutor | None = None

    @property
    def started(self) -> bool:
        """Whether any worker process has been started and not yet been closed."""
        with self._changed:
            return bool(self._alive)

    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        with self._changed:
            return [worker.process.pid for worker in self._alive]

    def run_many(self, tasks: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Run every task; outcomes in the tasks' order. Blocks; safe from many threads at once.

        Raises ConfigError when a worker cannot start (a reward that cannot be imported) and
        VerificationError when the pool is closed.
        """
        if len(tasks) <= 1:
            return [self._run(task) for task in tasks]
        outcomes: list[Outcome | None] = [None] * len(tasks)
        failures: list[Exception] = []
        numbers = iter(range(len(tasks)))
        lock = threading.Lock()

        def serve() -> None:
            while not failures:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    outcomes[number] = self._run(tasks[number])
                except (ConfigError, VerificationError) as error:
                    failures.append(error)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(self.workers, len(tasks)))]
        deadline = time.monotonic() + self._batch_limit(len(tasks))
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            stopped = VerificationError("The batch was interrupted or passed its outer deadline.")
            unfinished = any(outcome is None for outcome in outcomes)
            if unfinished and not failures:
                failures.append(stopped)  # ends the threads after their present task
        if failures and failures[0] is not stopped:
            raise failures[0]
        return [outcome or Outcome("timeout", self.timeout_s) for outcome in outcomes]

    def greeting(self) -> Mapping[str, Any]:
        """What a worker said when it was ready; starts one if need be."""
        worker = self._take()
        self._give_back(worker)
        return worker.greeting

    def close(self) -> None:
        """Kill every worker and wait for its end. Tasks under way end as `died`."""
        with self._changed:
            self._closed = True
            workers = list(self._alive)
            self._idle.clear()
            self._alive.clear()
            starter, self._starter = self._starter, None
            self._changed.notify_all()
        for worker in workers:
            worker.kill()
        if starter is not None:
            starter.shutdown(wait=False)

    def _batch_limit(self, tasks: int) -> float:
        """Far above what working limits allow: it only matters if something is wrong here."""
        with self._changed:
            rounds = (tasks + self._waiting) / self.workers + 2
        return self.start_timeout_s * 2 + rounds * (self.timeout_s + 5.0) * 2

    def _run(self, task: Mapping[str, Any]) -> Outcome:
        """One task on one worker; a worker that was ended from outside is replaced once."""
        data = json.dumps(task).encode()
        outcome = Outcome("died", 0.0)
        for _ in range(2):
            worker = self._take()
            try:
                outcome = worker.request(data, self.timeout_s)
            except BaseException:  # also KeyboardInterrupt: its reply must not reach the next task
                self._replace(worker)
                raise
            if outcome.kind == "reply" and worker.tasks < TASKS_PER_WORKER:
                self._give_back(worker)
            else:
                self._replace(worker)
            if outcome.kind != "died":
                break
        return outcome

    def _take(self) -> _Worker:
        """A worker that is ready, for the caller alone. One that dies while it starts is replaced twice."""
        for attempt in range(3):
            worker = self._reserve()
            try:
                worker.wait_ready(self.start_timeout_s)
                return worker
            except _EndedWhileStarting as error:
                self._discard(worker)
                if attempt == 2:
                    raise ConfigError(f"A grading process cannot start: {error}") from error
            except BaseException:
                self._discard(worker)
                raise
        raise AssertionError("unreachable")

    def _reserve(self) -> _Worker:
        """An idle worker, else a new one, else the next that becomes idle."""
        with self._changed:
            self._waiting += 1
            try:
                while not self._closed and not self._idle and len(self._alive) >= self.workers:
                    self._changed.wait()
                if self._closed:
                    raise VerificationError("This grading pool is closed.")
                return self._idle.pop() if self._idle else self._start()
            finally:
                self._waiting -= 1

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker in self._alive:
                self._idle.append(worker)
                self._changed.notify()

    def _replace(self, worker: _Worker) -> None:
        """Kill a worker and start the next one in its place at once."""
        self._discard(worker)
        with self._changed:
            if not self._closed and len(self._alive) < self.workers:
                self._idle.appendleft(self._start())
                self._changed.notify()

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        with self._changed:
            self._alive.discard(worker)
            self._changed.notify()

    def _start(self) -> _Worker:
        """Start a process, from one lasting thread: the kernel ties a child to the thread, not the process."""
        if os.getpid() != self._setup["parent"]:
            raise VerificationError("A grading pool cannot be used in a forked process; make a new one.")
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1, thread_name_prefix="verification-starter")
        worker = self._starter.submit(_Worker, self._setup).result()
        self._alive.add(worker)
        return worker


class _EndedWhileStarting(Exception):
    """The process ended before its greeting: killed from outside, or too little memory for its imports."""


class _Worker:
    """One process, its two pipes, and the framing of messages."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",  # each thread of a numerical library reserves address space
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reval_core.verification.worker", json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,  # its own group: Ctrl-C does not reach it, killpg takes its children
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._pending = b""
        self._killing = threading.Lock()
        self.greeting: Mapping[str, Any] = {}
        self.tasks = 0

    def wait_ready(self, limit_s: float) -> None:
        """Wait for the greeting. Raises ConfigError when the worker cannot serve."""
        if self.greeting:
            return
        reply = self._receive(time.monotonic() + limit_s)
        if reply == "timeout":
            raise ConfigError(f"A grading process did not start within {limit_s:g} s; is the machine overloaded?")
        if isinstance(reply, str):
            raise _EndedWhileStarting("it ended while it started; is memory_gb too small for its imports?")
        if not reply.get("ready"):
            raise ConfigError(f"A grading process cannot start: {reply.get('error')}")
        self.greeting = reply

    def request(self, data: bytes, limit_s: float) -> Outcome:
        """Send one task and wait for its reply, at most limit_s seconds."""
        self.tasks += 1
        begun = time.monotonic()
        deadline = begun + limit_s
        failure = self._send(struct.pack(">I", len(data)) + data, deadline)
        reply = failure or self._receive(deadline)
        seconds = time.monotonic() - begun
        if isinstance(reply, str):
            return Outcome("timeout" if reply == "timeout" else "died", seconds)
        return Outcome("reply", seconds, reply)

    def kill(self) -> None:
        """End the process and all it started; return when it is gone. May be called twice."""
        with self._killing:
            if self.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _send(self, data: bytes, deadline: float) -> Literal["timeout", "died"] | None:
        view = memoryview(data)
        while view:
            if not self._wait(self._input, select.POLLOUT, deadline):
                return "timeout"
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                continue
            except OSError:
                return "died"
        return None

    def _receive(self, deadline: float) -> Mapping[str, Any] | Literal["timeout", "died"]:
        """The next message. A malformed or oversized one counts as a death: the process is not sane."""
        while True:
            if len(self._pending) >= 4:
                size = struct.unpack(">I", self._pending[:4])[0]
                if size > MAX_REPLY_BYTES:
                    return "died"
                if len(self._pending) >= 4 + size:
                    data, self._pending = self._pending[4 : 4 + size], self._pending[4 + size :]
                    return _mapping(data)
            if not self._wait(self._output, select.POLLIN, deadline):
                return "timeout"
            try:
                chunk = os.read(self._output, 1 << 16)
            except BlockingIOError:
                continue
            except OSError:
                return "died"
            if not chunk:
                return "died"
            self._pending += chunk

    @staticmethod
    def _wait(descriptor: int, event: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(descriptor, event)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _mapping(data: bytes) -> Mapping[str, Any] | Literal["died"]:
    try:
        message = json.loads(data)
    except ValueError:
        return "died"
    return message if isinstance(message, dict) else "died"
