"""What all commands share: the terminal, the options that several take, and Prefect for the time of a flow."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from reval_core.home import Home
from tasks.progress import Progress, Terminal
from tasks.services import prefect_server

T = TypeVar("T")
PIPE_WIDTH = 1_000_000
"""Characters of a line where there is no terminal: no table is as wide, and what a program reads is not folded."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
console = Terminal(highlight=False, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file, for example configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key, as objective.beta=0.05; may be repeated.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="Value of a $name in the query, as run=RUN_ID; may be repeated.")
]


def visible(text: str, keep: str = "") -> str:
    """The text with its control characters, but those to ``keep``, as a program writes them, such as ``\\x1b``.

    A completion may hold some that move the cursor, colour what follows, or give the terminal orders.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def unfolded(console: Console) -> Console:
    """The console; where it leads into a pipe, which has no width, one that does not fold what a program reads."""
    if console.is_terminal or console.file is not sys.stdout:  # a page of a log has a width of its own
        return console
    return Terminal(width=PIPE_WIDTH, highlight=False, emoji=False)


@contextmanager
def served(home: Home, progress: Progress, meanwhile: Callable[[], T] | None = None) -> Iterator[T | None]:
    """Prefect's server for the block, with a word while it starts, and what was done meanwhile."""
    with ExitStack() as stack:
        with progress.waiting("starting Prefect's server"):
            done = stack.enter_context(prefect_server(home, meanwhile))
        yield done
