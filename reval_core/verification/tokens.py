"""The tokens of the strict grammar: commands, numbers, letters and signs of a normalised text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reval_core.verification.tree import Undecided

PLAIN_WORDS = frozenset(("sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "ln", "exp", "log", "pi", "infinity"))
_TOKEN = re.compile(
    r"\s*(\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?(?:[eE][+-]?\d{1,5}(?![\w.]))?|\.\d+|[a-zA-Z]+|\S)",
    re.ASCII,
)


def tokens(text: str) -> Iterator[str]:
    """Its tokens in order. Raises Undecided for a sign or a word that is none."""
    if not text.isascii():
        raise Undecided("a sign that normalising does not know")
    for match in _TOKEN.finditer(text):
        token = match[1]
        if token[0].isalpha() and len(token) > 1 and token.isalpha():
            if token in PLAIN_WORDS:
                yield token
            elif len(token) <= 2 or set(token) <= set("abcxyz"):
                yield from token  # a product of variables: xy, abc
            else:
                raise Undecided(f"the word {token!r}")
        else:
            yield token
