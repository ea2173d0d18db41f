"""What `reval doctor` asks of its surroundings: packages, addresses, processes. No judgement is made here."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

ANSWER_WITHIN_S = 2.0
PAUSES_S = (0.3, 0.4, 0.6, 0.7)
"""Between looks at who has a file open; uneven, since a run's commits come at a beat of their own."""


def differing(requirements: Iterable[str], *, missing: bool) -> list[str]:
    """The requirements that the installed packages do not meet, each as ``torch 2.9.0, wanted >=2.11``.

    Args:
        requirements: as in pyproject.toml; those whose marker does not fit here are left out.
        missing: whether a package that is not installed counts.
    """
    from packaging.requirements import Requirement

    unmet = []
    for wanted in map(Requirement, requirements):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            if missing:
                unmet.append(f"{wanted.name} is not installed, wanted {wanted.specifier or 'any version'}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            unmet.append(f"{wanted.name} {version}, wanted {wanted.specifier}")
    return unmet


def constraint_lines(file: Path) -> list[str]:
    """The requirements of a constraints file, without comments, options and hashes."""
    lines = [re.split(r"\s#|\s--|\\$", line)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def address(url: str) -> str:
    """Scheme, host, port and path of an address: what may be shown of it, since the rest can hold passwords."""
    scheme, separator, rest = url.partition("://")
    # a password may hold any sign, so everything up to the last @ goes
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2])[0].rstrip("/")


def silence(url: str, path: str) -> str | None:
    """Why nothing useful answers at ``url + path`` within `ANSWER_WITHIN_S`, or None when something does.

    Credentials of the address are not sent: a server that asks for some is there. A thread asks, because the time
    limit of a request does not hold for the look-up of a name.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address(url) + path, timeout=ANSWER_WITHIN_S):
                answers.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            answers.append(None if error.code in (401, 403) else f"answers {path} with HTTP {error.code}")
        except urllib.error.URLError as error:
            answers.append(f"does not answer: {error.reason}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            answers.append(f"does not answer: {type(error).__name__}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return answers[0] if answers else f"does not answer within {ANSWER_WITHIN_S:g} s"


def keepers(path: Path) -> set[str]:
    """``process 12 (duckdb)`` for each other process that keeps the file open, as far as this user may look.

    A run has it open for moments, on a busy machine for long ones; who keeps it has it at each of several looks.
    """
    found = _others_with(path)
    for pause_s in PAUSES_S:
        if not found:
            break
        time.sleep(pause_s)
        found &= _others_with(path)
    return found


def _others_with(path: Path) -> set[str]:
    import psutil

    wanted = str(path.resolve())
    holders = set()
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == wanted for file in process.open_files()):
                holders.add(named_process(process.pid))
        except (psutil.Error, OSError):  # it ended meanwhile, or it is another user's
            continue
    return holders


def named_process(pid: int) -> str:
    """``process 12 (duckdb)``; the name alone, since a command line can hold secrets."""
    import psutil

    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
