"""Runs a program that ends when the process that started it is gone, however that ended.

    python -m tasks.lifeline [--runs-first SECONDS] PROGRAM ARGUMENT...

Standard input is the lifeline: only the starting process holds the other end. When it ends, the program and everything
that it has started are asked to end, then killed. With --runs-first its own children are asked first and have so many
seconds: the runs of a worker, which put their stage in order before they end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from contextlib import suppress

import psutil

END_S = 10.0
"""Seconds that a program has to end."""


def main() -> None:
    """Start the program, and end with its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.lifeline")
    parser.add_argument("--runs-first", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    process = subprocess.Popen(given.program, stdin=subprocess.DEVNULL)
    asked = threading.Event()
    ending = threading.Thread(target=_end_with_the_other, args=(process, given.runs_first, asked), daemon=True)
    ending.start()
    code = process.wait()
    if asked.is_set():
        ending.join()  # what the program has started may end later than itself
    sys.exit(code)


def _end_with_the_other(process: subprocess.Popen[bytes], runs_first_s: float, asked: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin: a thread that waits in its buffer aborts the interpreter at the end
        pass
    asked.set()
    with suppress(psutil.NoSuchProcess):  # it has ended by itself
        program = psutil.Process(process.pid)
        if runs_first_s:
            _end(program.children(), runs_first_s)
        _end([program, *program.children(recursive=True)], END_S)


def _end(processes: list[psutil.Process], patience_s: float) -> None:
    """Ask processes to end; those that have not after so many seconds are killed."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main()
