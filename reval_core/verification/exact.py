"""Exact comparison: whole numbers as digits, and rational values by fractions. No rounding at all.

Every function says True or False only when it is sure, else None.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import comb, factorial

from reval_core.verification.parser import Apply, Node, Number, Undecided

_WHOLE = re.compile(r"([+-]?)0*([0-9]+)")
_BASED = re.compile(r"(-?[0-9A-F]+)_(?:\{?(?:\\text\{)?([a-z]+|\d{1,2})\}{0,2}|\{?\((\d{1,2})\)\}?)")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*(?:\\text\{)?\s*(?:([ap])\.?\s?m\.?)?\s*\}?", re.IGNORECASE)
_WORD_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
               "nine": 9, "ten": 10, "twelve": 12, "sixteen": 16}  # fmt: skip
_MAX_BITS = 100_000


def whole_number(text: str) -> str | None:
    """The canonical digits of an integer literal of any length (never converted), or None."""
    match = _WHOLE.fullmatch(text)
    if not match:
        return None
    digits = match[2].lstrip("0") or "0"
    return "-" + digits if match[1] == "-" and digits != "0" else digits


def equal_whole(gold: str, answer: str) -> bool | None:
    """Whether two integer literals are the same number; None when either is not one."""
    left = whole_number(gold)
    right = whole_number(answer) if left is not None else None
    return None if left is None or right is None else left == right


def equal_in_base(gold: str, answer: str) -> bool | None:
    """Numbers written with a base, 1112112_3: equal when both are valid and have one value.

    An answer without a base must have the gold's digits. None when the gold has no base.
    """
    left, right = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if left is None:
        return None
    if right is None:
        return left[1].lstrip("0") == answer.lstrip("0") if answer.isalnum() else None
    value = _value_in_base(left)
    return value is not None and value == _value_in_base(right)


def equal_clock(gold: str, answer: str) -> bool | None:
    """Times of day, 1:58 am: None unless the gold has am or pm and both are times."""
    left, right = _CLOCK.fullmatch(gold), _CLOCK.fullmatch(answer)
    if left is None or right is None or not left[3]:
        return None
    same_half = not right[3] or left[3].lower() == right[3].lower()
    return same_half and int(left[1]) == int(right[1]) and left[2] == right[2]


def _value_in_base(match: re.Match[str]) -> int | None:
    name = match[2] or match[3]
    base = _WORD_BASES.get(name) or (int(name) if name.isdigit() else 0)
    if not 2 <= base <= 36 or len(match[1]) > 200:
        return None
    try:
        return int(match[1], base)
    except ValueError:
        return None


def rational(node: Node) -> Fraction:
    """The exact value of a tree that is rational by construction.

    Raises Undecided for anything else: variables, roots that do not come out, results of more than
    100,000 bits (so that no power can be used to exhaust the machine), division by zero.
    """
    if isinstance(node, Number):
        return node.value
    if not isinstance(node, Apply):
        raise Undecided("a variable")
    if node.op == "sqrt":
        return _root(rational(node.args[0]), 2)
    if node.op not in ("add", "neg", "mul", "div", "pow", "factorial", "binomial", "abs", "floor", "ceil"):
        raise Undecided(node.op)
    values = [rational(arg) for arg in node.args]
    return _bounded(_operate(node.op, values))


def is_decimal(node: Node) -> bool:
    """Whether the tree is a decimal literal such as -0.25, with or without a sign."""
    while isinstance(node, Apply) and node.op == "neg":
        node = node.args[0]
    return isinstance(node, Number) and node.decimals is not None


def _operate(op: str, values: list[Fraction]) -> Fraction:
    first = values[0]
    if op == "add":
        return sum(values, Fraction(0))
    if op == "neg":
        return -first
    if op == "mul":
        return first * values[1]
    if op == "div":
        if values[1] == 0:
            raise Undecided("division by zero")
        return first / values[1]
    if op == "pow":
        return _power(first, values[1])
    if op == "abs":
        return abs(first)
    if op in ("floor", "ceil"):
        return Fraction(first.numerator // first.denominator if op == "floor" else -(-first // 1))
    if any(value.denominator != 1 or not 0 <= value <= 5_000 for value in values):
        raise Undecided(f"{op} out of range")
    if op == "factorial":
        return Fraction(factorial(int(first)))
    return Fraction(comb(int(first), int(values[1])))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        if exponent.denominator > 12:
            raise Undecided("a root of high degree")
        base, exponent = _root(base, exponent.denominator), Fraction(exponent.numerator)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * size > _MAX_BITS or (base == 0 and exponent <= 0):
        raise Undecided("a power out of range")
    return base ** int(exponent)


def _root(value: Fraction, degree: int) -> Fraction:
    """The exact non-negative root, if it is rational."""
    if value < 0 or value.numerator.bit_length() > 2_000 or value.denominator.bit_length() > 2_000:
        raise Undecided("a root out of range")
    parts = [_integer_root(part, degree) for part in (value.numerator, value.denominator)]
    return Fraction(parts[0], parts[1])


def _integer_root(value: int, degree: int) -> int:
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    if low**degree != value:
        raise Undecided("an irrational root")
    return low


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise Undecided("a number out of range")
    return value
