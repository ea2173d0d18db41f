"""A bound on the work of one verdict, counted in microseconds of an ordinary core and never measured.

What would cost too much is Undecided, the same for the same text on every machine and at every load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from reval_core.verification.tree import Undecided


class Exhausted(Undecided):
    """The allowance is spent: nothing more is to be tried."""


_left: ContextVar[float | None] = ContextVar("verification_work_left", default=None)


@contextmanager
def allowance(microseconds: float) -> Iterator[None]:
    """Bound what is spent inside; nested, the smaller bound holds and the outer one pays."""
    outer = _left.get()
    granted = microseconds if outer is None else min(microseconds, outer)
    token = _left.set(granted)
    try:
        yield
    finally:
        rest = _left.get() or 0.0
        _left.reset(token)
        if outer is not None:
            _left.set(outer - granted + rest)


def spend(microseconds: float) -> None:
    """Take from the allowance that is in force, if any. Raises Exhausted beyond it."""
    left = _left.get()
    if left is None:
        return
    _left.set(max(left - microseconds, 0.0))
    if microseconds > left:
        raise Exhausted("too much work for this process")
