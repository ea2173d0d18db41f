"""Operators that look like letters stay undecided for the numeric tier."""

from __future__ import annotations

import pytest

from reval_core.verification.parser import parse
from reval_core.verification.tree import Undecided


@pytest.mark.parametrize(
    "text", [r"\int_0^1 x dx", r"\lim_{x} x", r"\max_1 2", r"\Gamma(3)", r"\zeta(2)", r"\varphi(10)"]
)
def test_operators_and_named_functions_are_not_letters(text):
    with pytest.raises(Undecided):
        parse(text)
