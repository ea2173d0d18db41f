"""Exact comparison: whole numbers as digits, and rational values by fractions. No rounding at all.

Every function says True or False only when it is sure, else None.
"""

from __future__ import annotations

import re
from fractions import Fraction

from flint import fmpq, fmpz

from reval_core.verification.budget import allowance, spend
from reval_core.verification.tree import Apply, Node, Number, Undecided

_WHOLE = re.compile(r"([+-]?)0*([0-9]+)")
_BASED = re.compile(r"(-?[0-9A-F]+)_(?:\{?(?:\\text\{)?([a-z]+|\d{1,2})\}{0,2}|\{?\((\d{1,2})\)\}?)", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*(?:\\text\{)?\s*(?:([ap])\.?\s?m\.?)?\s*\}?", re.IGNORECASE | re.ASCII)
_WORD_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
               "nine": 9, "ten": 10, "twelve": 12, "sixteen": 16}  # fmt: skip
_MAX_BITS = 100_000
_MAX_ARGUMENT = 5_000  # of a factorial or a binomial
_WORK = 10_000  # microseconds
_OPERATIONS = frozenset(
    ["add", "neg", "mul", "div", "pow", "sqrt", "root", "factorial", "factorial2", "binomial", "abs", "floor", "ceil"]
)


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
    """Numbers written with a base, 1112112_3: equal when both are valid, of one base and of one value.

    The base is part of what was asked for: 1_6 is not 1_5. An answer without a base must have the gold's digits. None
    when the gold has no base: A_n and A_5 are symbols.
    """
    left, right = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    value = _value_in_base(left) if left else None
    if left is None or value is None:
        return None
    if right is None:
        return left[1].lstrip("0") == answer.lstrip("0") if answer.isalnum() else None
    return _base(left) == _base(right) and value == _value_in_base(right)


def equal_clock(gold: str, answer: str) -> bool | None:
    """Times of day, 1:58 am or 13:58: None unless both are, and one says which half of the day it means.

    A time without am or pm is of 24 hours where it can be no other (14:24, 0:30); else it is of the gold's half.
    """
    left, right = _CLOCK.fullmatch(gold), _CLOCK.fullmatch(answer)
    if left is None or right is None:
        return None
    minutes = _minute_of_day(left), _minute_of_day(right)
    if minutes[0] is not None and minutes[1] is not None:
        return minutes[0] == minutes[1] if left[3] or right[3] else None
    if not left[3] or right[3]:
        return None
    return int(left[1]) == int(right[1]) and left[2] == right[2]


def _minute_of_day(time: re.Match[str]) -> int | None:
    """Minutes since midnight; None for a time of which nothing says what half of the day it is in."""
    hour, minute = int(time[1]), int(time[2])
    if time[3]:
        return (hour % 12 + (12 if time[3].lower() == "p" else 0)) * 60 + minute if 1 <= hour <= 12 else None
    return hour * 60 + minute if (hour == 0 or hour > 12) and hour < 24 else None


def _base(match: re.Match[str]) -> int:
    name = match[2] or match[3]
    return _WORD_BASES.get(name) or (int(name) if name.isdigit() else 0)


def _value_in_base(match: re.Match[str]) -> int | None:
    """The value, or None for what is no number in a base: digits that it lacks, or a lone capital letter."""
    base = _base(match)
    lone_letter = len(match[1].lstrip("-")) == 1 and not match[1].isdigit()
    if not 2 <= base <= 36 or len(match[1]) > 200 or lone_letter:
        return None
    try:
        return int(match[1], base)
    except ValueError:
        return None


def rational(node: Node) -> Fraction:
    """The exact value of a tree that is rational by construction.

    Raises Undecided for anything else: variables, roots that do not come out, results of more than
    100,000 bits and more than 10 ms of work in all (so that no power can be used to exhaust the machine),
    division by zero.
    """
    if isinstance(node, Number):
        return node.value
    with allowance(_WORK):
        value = _value(node)
    return Fraction(int(value.p), int(value.q))


def is_decimal(node: Node) -> bool:
    """Whether the tree is a decimal literal such as -0.25, with or without a sign."""
    while isinstance(node, Apply) and node.op == "neg":
        node = node.args[0]
    return isinstance(node, Number) and node.decimals is not None


def number(literal: Number) -> fmpq:
    """A literal's value as FLINT holds it."""
    return fmpq(literal.value.numerator, literal.value.denominator)


def operate(op: str, values: list[fmpq], max_bits: int = _MAX_BITS) -> fmpq:
    """One operation on rational values. Raises Undecided where the result is not rational or too large."""
    if op not in _OPERATIONS:
        raise Undecided(op)
    value = _operate(op, values, max_bits)
    if bits(value) > max_bits:
        raise Undecided("a number out of range")
    spend(_cost(value))
    return value


def _cost(value: fmpq) -> float:
    """Microseconds of one operation with such a result, for the greatest common divisor of long numbers above all."""
    size = bits(value)
    return 0.5 if size < 1_000 else size / 100


def bits(value: fmpq) -> int:
    """The bits of the longer of numerator and denominator."""
    return int(value.height_bits())


def _value(node: Node) -> fmpq:
    if isinstance(node, Number):
        return number(node)
    if not isinstance(node, Apply):
        raise Undecided("a variable")
    if node.op not in _OPERATIONS:
        raise Undecided(node.op)
    return operate(node.op, [_value(arg) for arg in node.args])


def _operate(op: str, values: list[fmpq], max_bits: int) -> fmpq:
    first = values[0]
    if op == "add":
        for value in values[1:]:
            first = first + value
            spend(_cost(first))
        return first
    if op == "neg":
        return -first
    if op == "mul":
        return first * values[1]
    if op == "div":
        if values[1] == 0:
            raise Undecided("division by zero")
        return first / values[1]
    if op == "pow":
        return _power(first, values[1], max_bits)
    if op == "sqrt":
        return root(first, 2)
    if op == "root":
        return _real_root(first, values[1])
    if op == "abs":
        return abs(first)
    if op in ("floor", "ceil"):
        return fmpq(first.floor() if op == "floor" else first.ceil())
    return fmpq(combinatorial(op, values, max_bits))


def combinatorial(op: str, values: list[fmpq], max_bits: int = _MAX_BITS) -> fmpz:
    """n!, n!! or a binomial of whole numbers from 0 to 5,000. Raises Undecided for others."""
    if any(value.q != 1 or not 0 <= value <= _MAX_ARGUMENT for value in values):
        raise Undecided(f"{op} out of range")
    count = int(values[0].p)
    if count * count.bit_length() > 2 * max_bits:
        raise Undecided(f"{op} out of range")
    spend(count / 30)
    if op == "binomial":
        return fmpz.bin_uiui(count, int(values[1].p))
    if op == "factorial":
        return fmpz.fac_ui(fmpz(count))
    half = fmpz(count // 2)  # (2k)!! = 2^k k!, and n!! (n - 1)!! = n!
    even = fmpz(2) ** int(half) * fmpz.fac_ui(half)
    return even if count % 2 == 0 else fmpz.fac_ui(fmpz(count)) // even


def _power(base: fmpq, exponent: fmpq, max_bits: int) -> fmpq:
    if exponent.q != 1:
        if exponent.q > 12:
            raise Undecided("a root of high degree")
        base, exponent = root(base, int(exponent.q)), fmpq(exponent.p)
    if abs(exponent) * bits(base) > max_bits or (base == 0 and exponent <= 0):
        raise Undecided("a power out of range")
    return base ** int(exponent.p)


def _real_root(value: fmpq, degree: fmpq) -> fmpq:
    """\\sqrt[n] for an odd n, of negative numbers too."""
    if not 1 <= degree <= 100:
        raise Undecided("a root of high degree")
    found = root(abs(value), int(degree.p))
    return -found if value < 0 else found


def root(value: fmpq, degree: int) -> fmpq:
    """The exact non-negative root, if it is rational."""
    if value < 0 or bits(value) > 2_000:
        raise Undecided("a root out of range")
    spend(bits(value) / 100)
    parts = [part.root(degree) for part in (value.p, value.q)]
    found = fmpq(parts[0], parts[1])
    if found**degree != value:
        raise Undecided("an irrational root")
    return found
