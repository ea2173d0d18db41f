"""Which process did something, so that whether it still runs can be asked later, from another process."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be taken for another one that got its number later."""

    pid: int
    host: str
    process_started: float
    """As `started` tells it."""

    @classmethod
    def mine(cls) -> ProcessIdentity:
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process of this host that has the number now.

        Raises:
            psutil.NoSuchProcess: none has it.
        """
        return cls(pid, socket.gethostname(), started(pid))

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when it belongs to another host, which cannot be seen from here."""
        if self.host != socket.gethostname():
            return None
        try:
            # a zombie has ended; its parent has only not asked for its exit code yet
            return started(self.pid) == self.process_started and (
                psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def started(pid: int) -> float:
    """When the process began: on Linux in seconds since the machine's start, elsewhere since 1970.

    The kernel of Linux keeps this number as it is, whereas a process's start in wall time is worked out from the clock
    of the moment: it moves when the clock is set or drifts, and a living process would be taken for one that has ended.

    Raises:
        psutil.NoSuchProcess: no process has the number.
    """
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    fields = line.rpartition(b")")[2].split()  # from the third on: the name before them may hold spaces and brackets
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
