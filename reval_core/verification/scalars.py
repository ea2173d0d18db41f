"""What is asked of a scalar's text: whether the strict grammar reads it, and whether it has variables."""

from __future__ import annotations

from reval_core.verification.parser import parse
from reval_core.verification.readings import Reading, Scalar
from reval_core.verification.tree import Undecided, symbols


def parses(text: str) -> bool:
    """Whether text is a scalar expression of the strict grammar."""
    try:
        parse(text)
    except Undecided:
        return False
    return True


def has_symbols(scalar: Scalar) -> bool:
    """Whether the value depends on a variable, or cannot be read."""
    try:
        return bool(symbols(parse(scalar.text)))
    except Undecided:
        return True


def is_constant(read: Reading) -> bool:
    """Whether a reading is one value without variables."""
    return isinstance(read, Scalar) and not has_symbols(read)
