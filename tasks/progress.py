"""Live progress: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from reval_core.visible import visible

log = logging.getLogger(__name__)

WIDE = 110
"""Columns from which on words are written out."""
PATIENCE_S = 10.0
"""Seconds between two plain lines about one piece of work."""


class Terminal(Console):
    """A console whose reader may leave, as in ``reval train ... | head``: what is written then goes nowhere."""

    def on_broken_pipe(self) -> None:
        """Rich would end the program here. The other standard stream goes, too, where both are the same pipe."""
        gone = os.fstat(self.file.fileno())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
            if os.path.samestat(os.fstat(stream), gone):
                os.dup2(nowhere, stream)
        os.close(nowhere)


class _Lines(Terminal):
    def on_broken_pipe(self) -> None:
        super().on_broken_pipe()
        log.warning("nobody reads the output any more; the work goes on without it")


class Progress:
    """Shows what a run is doing.

    Args:
        quiet: show nothing.
        into_log: lines go into the log, as where a server shows what a run does.
    """

    shown: ClassVar[bool] = True
    """Whether this program shows progress at all."""

    def __init__(self, *, quiet: bool = False, into_log: bool = False) -> None:
        quiet = quiet or not self.shown
        self.console = _Lines(quiet=quiet or into_log, highlight=False, emoji=False)
        self._into_log = into_log
        self._live = not quiet and not into_log and sys.stdout.isatty()
        self._bars: Bars | None = None
        self._rounds: int = 0
        self._task: TaskID | None = None
        self._step: TaskID | None = None
        self._seen: set[str] = set()
        self._started = 0.0
        self._first = 0
        self._last_line = 0.0
        self.on_step: Callable[[], None] = lambda: None
        """Told of every step."""

    def __enter__(self) -> Progress:
        if self._live:
            self._bars = Bars(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24 if self.console.width >= WIDE else 8),
                _Count(),
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        """One line, in which names and texts of others give no orders to a terminal."""
        text = visible(text, keep="\n")
        if self._into_log:
            log.info("%s", text.strip())
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """On a terminal, a bar without an end while the block runs; elsewhere nothing."""
        if self._bars is None:
            yield
            return
        task = self._bars.add_task(what, total=None, note="")
        try:
            yield
        finally:
            self._bars.remove_task(task)

    def step(self, name: str, done: int, total: int) -> None:
        """Progress inside one piece of work.

        On a terminal a second bar. Elsewhere a line when work of this name is seen for the first time, and then one
        every ten seconds while it lasts.
        """
        self.on_step()
        name = visible(name)
        if self._bars is None:
            self._step_in_lines(name, done, total)
            return
        if self._step is None:
            self._step = self._bars.add_task(name, total=total, note="")
        self._bars.update(self._step, description=name, completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._step)
            self._step = None

    def _step_in_lines(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        new = name not in self._seen
        if done <= 1:
            self._last_line = now
        if (new and total > 1) or (now - self._last_line > PATIENCE_S and done < total):
            self._seen.add(name)
            self._last_line = now
            self.say(f"  {name}: {done} of {total}")

    def start_rounds(self, total: int, first: int) -> None:
        """The iterations begin."""
        self._rounds, self._first, self._started = total, first, time.monotonic()
        if self._bars is not None and first < total:
            self._task = self._bars.add_task("rounds", total=total, completed=first, note="")

    def end_round(self, iteration: int) -> None:
        """An iteration is done."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=iteration + 1)

    def metrics(self, iteration: int, success: str, residual: float | None, staleness: float | None) -> None:
        """The numbers of an iteration: how the fresh batch did, mean residual in nats, staleness in rounds."""
        minutes = (time.monotonic() - self._started) / 60
        rate = (iteration + 1 - self._first) / minutes if minutes else 0.0
        shown = "-" if residual is None else f"{residual:+.2f}"
        stale = "-" if staleness is None else f"{staleness:.1f}"
        note = f"{success}  residual {shown}  staleness {stale}  {rate:.1f} rounds/min"
        if self._bars is not None and self.console.width < WIDE:
            note = f"{success}  res {shown}  stale {stale}  {rate:.0f}/min"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, note=note)
        else:
            self.say(f"iteration {iteration:>3} of {self._rounds}  {note}")


class _Count(MofNCompleteColumn):
    """``3/30``, and nothing for work without a known end."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)
