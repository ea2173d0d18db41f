"""Ends a process once the one that started this watcher is gone, however that ended.

    python watcher.py PID CREATED

Prefect stops its embedded server when Python exits, which a killed process does not do. The watcher reads its standard
input, whose other end only the starting process holds: the end of that file is the end of that process.
"""

import sys

import psutil

PATIENCE_S = 10.0
"""Seconds from asking the process to end to killing it."""


def main(pid: int, created: float) -> None:
    """Wait for the end of standard input, then end the process, unless its number is another one's by now.

    Args:
        pid: the process to end.
        created: when it started, as psutil tells it.
    """
    sys.stdin.buffer.read()
    try:
        process = psutil.Process(pid)
        if process.create_time() != created:
            return
        process.terminate()
        process.wait(PATIENCE_S)
    except psutil.TimeoutExpired:
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
