"""Indefinite integrals: two expressions that are the same up to the constant of integration."""

from __future__ import annotations

import random
import re
from fractions import Fraction

from reval_core.verification import numeric
from reval_core.verification.readings import Opaque, Reading, Scalar
from reval_core.verification.tree import Apply, Node, Number, Symbol, Undecided, replaced, symbols
from reval_core.verification.verdict import GradingPolicy

_GOLD_CONSTANT = re.compile(r"C(?:_\d)?")
_CONSTANT = re.compile(r"[CcKk](?:_\d)?")
_VARIABLE = re.compile(r"[xyztuvws]|theta|phi|varphi")
_IN_WORDS = re.compile(r"(?<=\+)\s?(?:\\text ?\{\s?const(?:ant)?\.?\s?\}|const(?:ant)?\.?)$")
_random = random.SystemRandom()


def with_letter(read: Reading) -> Reading:
    """The reading with C for a constant in words: x^2 + \\text{const}."""
    if isinstance(read, Scalar | Opaque) and "const" in read.text:
        text, said = _IN_WORDS.subn(" C", read.text)
        return Scalar(text) if said else read
    return read


def has_constant(gold: Node) -> bool:
    """Whether a gold is an expression in one variable plus C: in h + k and 2a + c every letter counts."""
    rest = _without_constant(gold, _GOLD_CONSTANT)
    return rest is not None and len(names := symbols(rest)) == 1 and all(map(_VARIABLE.fullmatch, names))


def equal(gold: Node, answer: Node, policy: GradingPolicy) -> bool:
    """Whether the answer has a constant too and the rest differs from the gold's by the same number everywhere.

    That is F(x) - G(x) = F(cx) - G(cx), c being any number between 0 and 1. False where that cannot be said.
    """
    left, right = _without_constant(gold, _GOLD_CONSTANT), _without_constant(answer, _CONSTANT)
    if left is None or right is None or symbols(left) != symbols(right):
        return False
    nearer = Number(Fraction(_random.randrange(5_000, 10_000), 10_000))  # to 0, so in most domains that x is in
    first, second = (Apply("add", (a, _scaled(b, nearer))) for a, b in ((left, right), (right, left)))
    try:
        return numeric.equal(first, second, policy)
    except Undecided:
        return False


def same_case(gold: Node, answer: Node) -> Node:
    """The answer with its one constant c written as the gold's C, or the other way round, beside one variable."""
    (left, right) = symbols(gold), symbols(answer)
    wanted, found = left - right, right - left
    if len(wanted) == len(found) == 1 and len(left) == 2 and all(map(_VARIABLE.fullmatch, left & right)):
        (mine,), (theirs,) = wanted, found
        if mine.casefold() == theirs.casefold() == "c":
            return replaced(answer, Symbol(theirs), Symbol(mine))
    return answer


def _scaled(node: Node, factor: Number) -> Node:
    for name in symbols(node):
        node = replaced(node, Symbol(name), Apply("mul", (factor, Symbol(name))))
    return node


def _without_constant(node: Node, constant: re.Pattern[str]) -> Node | None:
    """A sum without its constant of integration, None when it has none, or the letter stands elsewhere too."""
    if not isinstance(node, Apply) or node.op != "add":
        return None
    constants = [term for term in node.args if isinstance(term, Symbol) and constant.fullmatch(term.name)]
    rest = Apply("add", tuple(term for term in node.args if term not in constants))
    return rest if len(constants) == 1 and constants[0].name not in symbols(rest) else None
