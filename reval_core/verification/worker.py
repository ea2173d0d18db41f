"""The server that forks grading processes, and what these do: `python -m reval_core.verification.worker SETUP`.

SETUP is JSON: {"parent": pid, "memory_bytes": int, "serve": "math" | "reward", "use": str, "args": {}}. Standard
input is the socket of the pool (forkserver.py says what passes over it). Mathematics is loaded once, here; a reward
of one's own is imported by each process after the fork, since what it imports may start threads. A process greets
with its id and with what it serves, reads requests and writes replies, each a four-byte big-endian length and that
many bytes of JSON, and ends when its socket does. The kernel ends server and processes when the process above them
dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from reval_core.verification.confine import confine, refusals
from reval_core.verification.forkserver import ORDER

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork and kill as told, until the pool's socket ends or SIGTERM."""
    setup = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    control = _control()
    _limit(setup)
    if setup["serve"] == "math":
        from reval_core.verification import symbolic

        symbolic.warm_up()
    gc.collect()
    gc.freeze()  # the processes share these objects: a collection that touched them would copy them
    children: set[int] = set()
    try:
        while (order := _order(control)) is not None:
            command, pid, connection = order
            if command == b"F" and connection is not None:
                children.add(_fork(setup, control, connection))
            elif command == b"K":
                if pid in children:
                    children.remove(pid)
                    _end(pid)
                control.sendall(ORDER.pack(b"K", pid))
    finally:
        for pid in children:
            _end(pid)


def serve(setup: Mapping[str, Any], stream: BinaryIO) -> None:
    """Answer requests until the input ends."""
    send(stream, {"pid": os.getpid()})
    try:
        greeting, handle = _prepare(setup)
    except Exception as error:  # a user's module may raise anything while it is imported
        send(stream, {"error": describe(error)})
        return
    send(stream, {"ready": True, **greeting})
    while (request := receive(stream)) is not None:
        try:
            reply = handle(request)
        except MemoryError:
            send(stream, {"error": "out of memory: over the limit of this grading process"})
            return  # what is left of this process is not worth keeping
        except (Exception, SystemExit) as error:  # the boundary: the parent reports it as a verdict
            reply = {"error": describe(error)}
        send(stream, reply)


def send(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    """Write one framed JSON message."""
    data = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one framed JSON message; None at the end of input."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    data = stream.read(struct.unpack(">I", head)[0])
    message: dict[str, Any] = json.loads(data)
    return message


def describe(error: BaseException) -> str:
    """An exception in one line of at most 500 characters."""
    return f"{type(error).__name__}: {error}"[:500]


def _control() -> socket.socket:
    """The pool's socket under a descriptor of its own, so that nobody reads it as standard input."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # what a reward prints
    return control


def _order(control: socket.socket) -> tuple[bytes, int, socket.socket | None] | None:
    """The next command; None at the end of input."""
    data, descriptors, _, _ = socket.recv_fds(control, ORDER.size, 1)
    while 0 < len(data) < ORDER.size:
        more = control.recv(ORDER.size - len(data))
        data = data + more if more else b""
    if not data:
        return None
    command, pid = ORDER.unpack(data)
    return command, pid, socket.socket(fileno=descriptors[0]) if descriptors else None


def _fork(setup: Mapping[str, Any], control: socket.socket, connection: socket.socket) -> int:
    """A process in a group of its own that serves the connection; its id."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        connection.close()
        with contextlib.suppress(OSError):  # it may have done so itself, or be gone
            os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        _die_with(parent)
        control.close()
        _draw_anew()
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(BrokenPipeError):
            serve(setup, stream)  # type: ignore[arg-type]
        status = 0
    finally:
        os._exit(status)  # never back into the server's loop


def _end(pid: int) -> None:
    """Kill a process of ours and its group; return when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _limit(setup: Mapping[str, Any]) -> None:
    """Memory limit, no core files, death with the parent; inherited by what is forked, but for the last."""
    memory = int(setup["memory_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with(setup["parent"])


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process is gone")


def _draw_anew() -> None:
    """Fresh random numbers: a fork repeats those of its siblings, and a policy could learn the points of a test."""
    random.seed()
    if "sympy" in sys.modules:
        sys.modules["sympy"].core.random.seed(random.getrandbits(64))


def _prepare(setup: Mapping[str, Any]) -> tuple[dict[str, Any], Handler]:
    """What is served: the greeting and the handler."""
    if setup["serve"] == "math":
        from reval_core.verification import symbolic

        confine()

        def compare(request: Mapping[str, Any]) -> dict[str, Any]:
            refusals.clear()
            try:
                equal, reason = symbolic.compare(request["gold"], request["answer"])
            except MemoryError:
                raise
            except Exception as error:  # math-verify raises anything where it cannot compare; warm_up shows it works
                equal, reason = False, f"not to be compared: {describe(error)}"
            if refusals:
                return {"equal": False, "reason": f"not to be compared: the process was refused {refusals[0]}"}
            return {"equal": equal, "reason": reason}

        return {}, compare
    from reval_core.verification import reward

    served = reward.load(setup["use"], setup["args"])

    def score(request: Mapping[str, Any]) -> dict[str, Any]:
        return {"verdict": reward.score_one(served, request["problem"], request["completion"])}

    return {"name": served.name, "version": served.version}, score


if __name__ == "__main__":
    main()
