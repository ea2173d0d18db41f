"""What all commands share: the terminal, the options that several take, and Prefect for the time of a flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from reval_core.home import Home
from tasks.progress import Progress, Terminal
from tasks.services import prefect_server

T = TypeVar("T")
console = Terminal(highlight=False, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(help="Configuration file, for example configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key, as objective.beta=0.05; may be repeated.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", help="Value of a $name in the query, as run=RUN_ID; may be repeated.")
]


@contextmanager
def served(home: Home, progress: Progress, meanwhile: Callable[[], T] | None = None) -> Iterator[T | None]:
    """Prefect's server for the block, with a word while it starts, and what was done meanwhile."""
    with ExitStack() as stack:
        with progress.waiting("starting Prefect's server"):
            done = stack.enter_context(prefect_server(home, meanwhile))
        yield done
