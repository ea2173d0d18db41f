"""How a run is asked to end: by Ctrl-C or SIGTERM in a terminal, by Prefect's runner when it was started by one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASKED_TO_END = (KeyboardInterrupt, TerminationSignal)
"""What is raised then; no `Exception`, which would be swallowed by libraries that shield themselves from errors."""


@contextmanager
def interruptions_told() -> Iterator[None]:
    """Let an interruption go on as one where a library met it with an error of its own.

    Prefect does, where the signal finds it between two states of a task run. Whoever records how something ended, and
    whoever says so on the terminal, stands outside.

    Raises:
        KeyboardInterrupt, TerminationSignal: the one that lies behind the error.
    """
    try:
        yield
    except Exception as error:
        asked = _interruption_behind(error)
        if asked is None:
            raise
        raise asked from None


def _interruption_behind(error: BaseException | None) -> BaseException | None:
    """What asked to end while the error was made; an error raised `from None` has been told apart from it."""
    while error is not None and not isinstance(error, ASKED_TO_END):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


@contextmanager
def signals_wait() -> Iterator[None]:
    """What asks to end waits until the block is over: for short writes that a library would leave half done.

    Raises:
        KeyboardInterrupt, TerminationSignal: at the end of the block, where one was asked for in it.
    """
    came: list[int] = []
    try:
        before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in _SIGNALS}
    except ValueError:  # not the main thread, which no signal reaches
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def is_deployed() -> bool:
    """Whether a runner or worker has started the flow run around us."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: the stage that is under way is dropped, what is committed stays.

    A runner tells the run by Prefect's own handler whether it was cancelled, so that one stays in its place.
    """
    if is_deployed():
        try:
            yield
        except KeyboardInterrupt as error:  # DuckDB's word for any signal that reaches it in a query
            raise TerminationSignal(signal.SIGTERM) from error
        return
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread, where a signal ends nothing
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
