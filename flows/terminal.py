"""What all commands share: the terminal, the options that several take, and Prefect for the time of a flow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from reval_core.home import Home
from reval_core.visible import visible
from tasks.progress import Progress, Terminal
from tasks.services import prefect_server

T = TypeVar("T")
PIPE_WIDTH = 1_000_000
"""Characters of a line where there is no terminal: no table is as wide, and what a program reads is not folded."""

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file, for example configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key, as objective.beta=0.05; may be repeated.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="Value of a $name in the query, as run=RUN_ID; may be repeated.")
]


class Shown(Terminal):
    """A terminal to which every text goes without control characters: names, questions and answers are of others.

    Colours are markup of our own; a ``Text`` is taken as it is.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as Rich renders it."""
        return super().render_str(visible(text, keep="\n\t"), **options)


console = Shown(highlight=False, emoji=False)


def unfolded(console: Console) -> Console:
    """The console; where it leads into a pipe, which has no width, one that does not fold what a program reads."""
    if console.is_terminal or console.file is not sys.stdout:  # a page of a log has a width of its own
        return console
    return Shown(width=PIPE_WIDTH, highlight=False, emoji=False)


@contextmanager
def served(home: Home, progress: Progress, meanwhile: Callable[[], T] | None = None) -> Iterator[T | None]:
    """Prefect's server for the block, with a word while it starts, and what was done meanwhile."""
    with ExitStack() as stack:
        with progress.waiting("starting Prefect's server"):
            done = stack.enter_context(prefect_server(home, meanwhile))
        yield done
