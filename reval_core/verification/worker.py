"""The process that does what cannot be trusted to end: `python -m reval_core.verification.worker SETUP`.

SETUP is JSON: {"parent": pid, "memory_bytes": int, "serve": "math" | "reward", "use": str, "args": {}}.
It reads requests from standard input and writes replies to standard output, each a four-byte big-endian
length and that many bytes of JSON. The first message is a greeting. It ends when its input ends, and
the kernel ends it when its parent dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the input ends."""
    setup = json.loads(sys.argv[1])
    requests, replies = _private_pipes()
    _limit(setup)
    try:
        greeting, handle = _prepare(setup)
    except Exception as error:  # a user's module may raise anything while it is imported
        send(replies, {"ready": False, "error": describe(error)})
        return
    send(replies, {"ready": True, **greeting})
    while (request := receive(requests)) is not None:
        try:
            reply = handle(request)
        except MemoryError:
            send(replies, {"error": "out of memory: over the limit of this grading process"})
            return  # what is left of this process is not worth keeping
        except (Exception, SystemExit) as error:  # the boundary: the parent reports it as a verdict
            reply = {"error": describe(error)}
        send(replies, reply)


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


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes under fresh descriptors, so that a reward's print() cannot write into them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _limit(setup: Mapping[str, Any]) -> None:
    """Memory limit, no core files, death with the parent."""
    memory = int(setup["memory_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The signal is sent when the parent's *thread* ends, so the pool starts us from a lasting one.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != setup["parent"]:
            sys.exit("the parent process is gone")


def _prepare(setup: Mapping[str, Any]) -> tuple[dict[str, Any], Handler]:
    """Import what is served (that is most of the start-up time); return the greeting and handler."""
    if setup["serve"] == "math":
        from reval_core.verification import symbolic

        symbolic.warm_up()

        def compare(request: Mapping[str, Any]) -> dict[str, Any]:
            equal, reason = symbolic.compare(request["gold"], request["answer"])
            return {"equal": equal, "reason": reason}

        return {}, compare
    from reval_core.verification import reward

    served = reward.load(setup["use"], setup["args"])

    def score(request: Mapping[str, Any]) -> dict[str, Any]:
        return {"verdict": reward.score_one(served, request["problem"], request["completion"])}

    return {"name": served.name, "version": served.version}, score


if __name__ == "__main__":
    main()
