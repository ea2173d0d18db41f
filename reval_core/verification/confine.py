"""What a process that grades mathematics may do: compute. No network, no processes, no writing, no text evaluated.

The audit events of Python (PEP 578) are raised by the interpreter itself, also from within libraries, and a hook
cannot be taken away again. This is the second wall: the first is that no text from a model reaches a function that
would evaluate it.
"""

from __future__ import annotations

import os
import resource
import sys

_LIBRARY = tuple(
    os.path.realpath(path) + os.sep for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} if path
)
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "os.putenv",
    "shutil.",
    "ctypes.",
    "urllib.",
    "http.",
    "ftplib.",
    "smtplib.",
    "webbrowser.",
    "pty.",
    "sys.addaudithook",
)
_GENERATORS = ("sympy.polys.monomials", "collections", "dataclasses")
"""Modules that compile text which they write themselves, out of counts and of the names of their own fields."""

refusals: list[str] = []
"""What was refused; libraries swallow exceptions, so whoever called them looks here."""


class Confined(PermissionError):
    """A grading process tried what grading does not need."""

    def __init__(self, what: str) -> None:
        super().__init__(f"refused: {what}")
        refusals.append(what)


def confine() -> None:
    """Refuse from now on whatever is no computation; irreversible. Libraries may still load modules of their own."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, int) and not (_reads(flags) and _in_library(path)):
            raise Confined(f"opening {path!r}")
    elif event == "compile":
        source, name = arguments
        caller = sys._getframe(1).f_globals.get("__name__")
        if source is not None and not _in_library(name) and caller not in _GENERATORS:
            raise Confined(f"evaluating text, by {caller}")
    elif event.startswith(_REFUSED):
        raise Confined(event)


def _reads(flags: object) -> bool:
    return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def _in_library(path: object) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    name = os.fsdecode(path)
    return os.path.isabs(name) and os.path.realpath(name).startswith(_LIBRARY)
