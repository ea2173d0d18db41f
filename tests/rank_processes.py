"""The processes that learn as ranks, for tests in several folders."""

from contextlib import suppress

import psutil


def rank_processes() -> list[psutil.Process]:
    """torchrun and the ranks; other tests of this process may have left servers of theirs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "reval_core.policies.rank" in process.cmdline():
                found.append(process)
    return found
