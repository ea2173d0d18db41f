"""What the flows that a server offers have in common: where they work, and what they give."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from flows.terminal import Shown
from reval_core.home import Home, find_home
from tasks.progress import Progress
from tasks.services import configure

Answer = dict[str, Any]
"""What a flow gives: small JSON."""
ConfigFile = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[str, Field(min_length=1)]
WIDE = 110
"""Columns of what is shown in a log."""


@contextmanager
def at_work() -> Iterator[tuple[Home, Progress]]:
    """The root of this machine, and progress as lines of the run's log."""
    home = find_home()
    configure(home)
    for name in ("reval_core", "tasks", "flows"):
        logging.getLogger(name).setLevel(logging.INFO)
    with Progress(into_log=True) as progress:
        yield home, progress


def tell(progress: Progress, what: str, show: Callable[[Console], None]) -> None:
    """Put what the command of the same name prints at its end into the run's log, under a line that says what it is."""
    page = io.StringIO()
    show(Shown(file=page, width=WIDE))
    progress.say(f"{what}\n{page.getvalue().strip(chr(10))}")


def plain(done: Any) -> Answer:
    """A dataclass as JSON data; paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(done).items()}
