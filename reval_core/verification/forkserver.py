"""The parent's side of grading processes: one server that has everything loaded and forks them, a socket to each.

The server (worker.py) is single-threaded and has imported sympy before it forks, so a process that was killed is
replaced in milliseconds and shares its memory with the others. multiprocessing's own forkserver was not taken: it
imports `__main__` again in every process, which breaks scripts without a guard and drags their imports into the
memory limit, and its helper processes outlive a killed parent. Messages are JSON, never pickles, and nothing is
shared between processes, so a death can leave nothing locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reval_core.errors import ConfigError

MAX_REPLY_BYTES = 1 << 24
ORDER = struct.Struct(">cI")
"""What the server is told, and a process id: F 0 with a socket forks, K PID kills and is answered when that is done."""
_END_LIMIT_S = 5.0
_NEEDED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV")
"""What mathematics needs of the environment: keys and passwords stay with the process above."""


class EndedWhileStarting(Exception):
    """The process ended before its greeting: killed from outside, or too little memory for its imports."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a reply, `timeout` (killed at the limit) or `died` (the process ended)."""

    kind: Literal["reply", "timeout", "died"]
    seconds: float
    reply: Mapping[str, Any] = field(default_factory=dict)


class ForkServer:
    """The process that forks graders. To be made in a thread that lasts: the kernel ends it with that thread."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        inherited = os.environ if setup["serve"] != "math" else {k: os.environ[k] for k in _NEEDED if k in os.environ}
        environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(paths),
            "SYMPY_GROUND_TYPES": "python",  # what math-verify was measured with; FLINT is ours
            "OMP_NUM_THREADS": "1",  # each thread of a numerical library reserves address space
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reval_core.verification.worker", json.dumps(setup)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # its own group: Ctrl-C does not reach it
            )

    @property
    def alive(self) -> bool:
        """Whether the server's process lives."""
        return self._process.poll() is None

    def fork(self) -> GradingProcess:
        """A grading process that will greet; never waits for the server, which may still be loading."""
        ours, theirs = socket.socketpair()
        with (
            theirs,
            self._lock,
            contextlib.suppress(OSError),
        ):  # without a server the socket ends, which its reader sees
            socket.send_fds(self._control, [ORDER.pack(b"F", 0)], [theirs.fileno()])
        return GradingProcess(self, ours)

    def kill(self, pid: int) -> None:
        """End a process and all that it started; returns when it is gone. A server that is gone took it along."""
        with self._lock, contextlib.suppress(OSError):
            self._control.settimeout(_END_LIMIT_S)
            self._control.sendall(ORDER.pack(b"K", pid))
            self._control.recv(ORDER.size)

    def close(self) -> None:
        """End the server and every process that it forked."""
        self._control.close()
        self._process.terminate()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class GradingProcess:
    """One process: its id once it has greeted, its socket and the framing of messages."""

    def __init__(self, server: ForkServer, connection: socket.socket) -> None:
        self.pid: int | None = None
        self.greeting: Mapping[str, Any] = {}
        self.tasks = 0
        self._server = server
        self._socket = connection
        self._socket.setblocking(False)
        self._pending = b""
        self._killing = threading.Lock()

    def wait_ready(self, limit_s: float) -> None:
        """Wait for the two greetings: its id as soon as it lives, then what it serves.

        Raises:
            EndedWhileStarting: the process is gone.
            ConfigError: it cannot serve, or does not say within `limit_s` seconds that it can.
        """
        deadline = time.monotonic() + limit_s
        while not self.greeting:
            reply = self._receive(deadline)
            if reply == "timeout":
                raise ConfigError(f"A grading process did not start within {limit_s:g} s; is the machine overloaded?")
            if isinstance(reply, str):
                raise EndedWhileStarting("it ended while it started; is memory_gb too small for its imports?")
            if "error" in reply:
                raise ConfigError(f"A grading process cannot start: {reply['error']}")
            if self.pid is None:
                self.pid = int(reply["pid"])
            else:
                self.greeting = reply

    def request(self, data: bytes, limit_s: float) -> Outcome:
        """Send one task and wait for its reply, at most `limit_s` seconds."""
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
        """End the process and all it started. May be called twice, and from another thread than the one that waits."""
        with self._killing:
            if self.pid is not None:
                self._server.kill(self.pid)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # one that has not greeted yet ends when it does

    def _send(self, data: bytes, deadline: float) -> Literal["timeout", "died"] | None:
        view = memoryview(data)
        while view:
            if not self._wait(select.POLLOUT, deadline):
                return "timeout"
            try:
                view = view[self._socket.send(view) :]
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
            if not self._wait(select.POLLIN, deadline):
                return "timeout"
            try:
                chunk = self._socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError:
                return "died"
            if not chunk:
                return "died"
            self._pending += chunk

    def _wait(self, event: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _mapping(data: bytes) -> Mapping[str, Any] | Literal["died"]:
    try:
        message = json.loads(data)
    except ValueError:
        return "died"
    return message if isinstance(message, dict) else "died"
