"""Worker processes with a hard time limit, a memory limit, and nothing shared between them.

A pool's workers are forked by one server (forkserver.py) and talked to over a socket each; one that passes its limit
is killed (SIGKILL, its whole process group) and replaced. They die with their parent, also when that is killed, by
the kernel's doing (PR_SET_PDEATHSIG) and because their sockets end.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reval_core.errors import ConfigError, VerificationError
from reval_core.verification.forkserver import EndedWhileStarting, ForkServer, GradingProcess, Outcome

TASKS_PER_WORKER = 2_000
"""A worker is replaced after this many tasks: sympy's caches grow."""


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
        self._idle: deque[GradingProcess] = deque()  # right end: warm; left end: still starting
        self._alive: set[GradingProcess] = set()
        self._waiting = 0
        self._closed = False
        self._starter: ThreadPoolExecutor | None = None
        self._server: ForkServer | None = None

    @property
    def started(self) -> bool:
        """Whether any worker process has been started and not yet been closed."""
        with self._changed:
            return bool(self._alive)

    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        with self._changed:
            return [worker.pid for worker in self._alive if worker.pid is not None]

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
            server, self._server = self._server, None
            self._changed.notify_all()
        if server is not None:
            server.close()
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

    def _take(self) -> GradingProcess:
        """A worker that is ready, for the caller alone. One that dies while it starts is replaced twice."""
        for attempt in range(3):
            worker = self._reserve()
            try:
                worker.wait_ready(self.start_timeout_s)
                return worker
            except EndedWhileStarting as error:
                self._discard(worker)
                if attempt == 2:
                    raise ConfigError(f"A grading process cannot start: {error}") from error
            except BaseException:
                self._discard(worker)
                raise
        raise AssertionError("unreachable")

    def _reserve(self) -> GradingProcess:
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

    def _give_back(self, worker: GradingProcess) -> None:
        with self._changed:
            if worker in self._alive:
                self._idle.append(worker)
                self._changed.notify()

    def _replace(self, worker: GradingProcess) -> None:
        """Kill a worker and start the next one in its place at once."""
        self._discard(worker)
        with self._changed:
            if not self._closed and len(self._alive) < self.workers:
                self._idle.appendleft(self._start())
                self._changed.notify()

    def _discard(self, worker: GradingProcess) -> None:
        worker.kill()
        with self._changed:
            self._alive.discard(worker)
            self._changed.notify()

    def _start(self) -> GradingProcess:
        """Fork a process, from a server that is started by one lasting thread: the kernel ties it to that thread."""
        if os.getpid() != self._setup["parent"]:
            raise VerificationError("A grading pool cannot be used in a forked process; make a new one.")
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1, thread_name_prefix="verification-starter")
        if self._server is None or not self._server.alive:
            self._server = self._starter.submit(ForkServer, self._setup).result()
        worker = self._server.fork()
        self._alive.add(worker)
        return worker
