"""Comparing answers part by part: scalars exactly or numerically, groups element by element.

`equal` returns True or False when it is sure, else None, which leaves the pair to the symbolic tier.
"""

from __future__ import annotations

import re
from fractions import Fraction

from reval_core.verification import exact, numeric, units
from reval_core.verification.normalise import compact
from reval_core.verification.parser import Apply, Node, Number, Undecided, parse, symbols
from reval_core.verification.reading import (
    Equation,
    Group,
    Opaque,
    Reading,
    Scalar,
    Words,
    has_symbols,
    parses,
)
from reval_core.verification.verdict import GradingPolicy

_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_INFINITY = Apply("infinity")


def equal(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    """Whether two readings are the same answer; None when undecided."""
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        return _equal_equations(gold, answer, policy)
    if isinstance(gold, Opaque) or isinstance(answer, Opaque):
        return None
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _equal_words(gold, answer)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _equal_scalars(gold, answer, policy)
    if isinstance(gold, Group) and isinstance(answer, Group):
        return _equal_groups(gold, answer, policy)
    return _equal_mixed(gold, answer, policy)


def _equal_scalars(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    if not units.compatible(gold.unit, answer.unit, drop=policy.drop_units):
        return False
    if gold.percent != answer.percent:
        return _equal_percent(gold, answer, policy)
    if gold.text == answer.text:
        return True
    plain = exact.equal_whole(gold.text, answer.text)
    if plain is None:
        plain = exact.equal_in_base(gold.text, answer.text)
    if plain is not None:
        return plain
    try:
        left, right = parse(gold.text), parse(answer.text)
        if _INFINITY in (left, right) or Apply("neg", (_INFINITY,)) in (left, right):
            return left == right
        return numeric.equal(left, right, policy)
    except Undecided:
        return None


def _equal_percent(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    """One side has a percent sign: equal as fractions, or with the sign ignored, as policy allows."""
    marked, other = (gold, answer) if gold.percent else (answer, gold)
    verdicts: list[bool | None] = []
    if policy.percent_sign_optional:
        verdicts.append(_equal_scalars(Scalar(marked.text), Scalar(other.text), policy))
    if policy.percent_equals_fraction:
        try:
            fraction = Apply("div", (parse(marked.text), Number(Fraction(100))))
            verdicts.append(numeric.equal(fraction, parse(other.text), policy))
        except Undecided:
            verdicts.append(None)
    return True if True in verdicts else None if None in verdicts else False


def _equal_words(gold: Reading, answer: Reading) -> bool | None:
    if isinstance(gold, Words) and isinstance(answer, Words):
        left, right = (re.sub(r"^(?:the|a|an) ", "", re.sub(r"[^\w ]", "", side.text)) for side in (gold, answer))
        return left == right
    other = answer if isinstance(gold, Words) else gold
    words = gold if isinstance(gold, Words) else answer
    if isinstance(words, Words) and isinstance(other, Scalar) and compact(other.text).casefold() == words.text:
        return True
    return False if isinstance(other, Scalar) and parses(other.text) else None


def _equal_groups(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    kinds = {gold.kind, answer.kind}
    loose = {"list", "set", "plusminus"}
    if kinds <= loose:
        ordered = policy.ordered_lists and kinds == {"list"}
        return _all_pairs(gold, answer, policy) if ordered else _matching(gold, answer, policy)
    if gold.kind == answer.kind == "union":
        return _matching(gold, answer, policy)
    if gold.kind == answer.kind == "ratio" and len(gold.items) == len(answer.items) == 2:
        return equal(_quotient(gold), _quotient(answer), policy)
    brackets = {"()", "[]", "(]", "[)"}
    if gold.kind == answer.kind:
        return _all_pairs(gold, answer, policy)
    if kinds == {"list", "()"}:
        return _all_pairs(gold, answer, policy)  # a tuple whose brackets were left out
    if kinds == {"matrix", "()"}:
        return _equal_vector(gold, answer, policy)
    if kinds <= brackets:
        return False if kinds != {"()", "[]"} or len(gold.items) == 2 else None
    if "singleton" in kinds and kinds & (loose | brackets):
        return None if len(gold.items) == len(answer.items) else False
    return None


def _equal_vector(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    matrix, point = (gold, answer) if gold.kind == "matrix" else (answer, gold)
    rows = [row for row in matrix.items if isinstance(row, Group)]
    cells = rows[0].items if len(rows) == 1 else tuple(row.items[0] for row in rows)
    if any(len(row.items) != 1 for row in rows) and len(rows) != 1:
        return False
    pair = Group("()", cells), Group("()", point.items)
    return _all_pairs(*(pair if matrix is gold else pair[::-1]), policy)


def _quotient(ratio: Group) -> Reading:
    """a:b as the value a/b; Opaque when a part is more than a bare value."""
    left, right = ratio.items
    if isinstance(left, Scalar) and isinstance(right, Scalar) and not (left.unit or right.unit):
        return Scalar(f"({left.text})/({right.text})")
    return Opaque("ratio")


def _all_pairs(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    if len(gold.items) != len(answer.items):
        return False
    verdicts = [equal(g, a, policy) for g, a in zip(gold.items, answer.items, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _matching(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    """Equality as sets: every element has an equal one on the other side."""
    if len(gold.items) * len(answer.items) > 400:
        return None
    if min(len(gold.items), len(answer.items)) == 0:
        return len(gold.items) == len(answer.items)
    table = [[equal(g, a, policy) for a in answer.items] for g in gold.items]
    lines = table + [list(column) for column in zip(*table, strict=True)]
    if all(True in line for line in lines):
        return True
    return False if any(set(line) == {False} for line in lines) else None


def _equal_mixed(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    """One value against a group."""
    scalar, group = (gold, answer) if isinstance(gold, Scalar) else (answer, gold)
    if not isinstance(scalar, Scalar) or not isinstance(group, Group):
        return None
    if group.kind == "list" and all(isinstance(item, Scalar) for item in group.items):
        return _equal_decimal_comma(gold, answer, scalar, group, policy)
    if group.kind == "set" and len(group.items) == 1:
        only = group.items[0]
        return equal(scalar, only, policy) if scalar is gold else equal(only, scalar, policy)
    if group.kind == "ratio" and len(group.items) == 2:
        value = _quotient(group)
        return equal(scalar, value, policy) if scalar is gold else equal(value, scalar, policy)
    if group.kind in ("singleton", "()", "[]", "(]", "[)", "union", "list", "plusminus", "set"):
        return False if parses(scalar.text) else None
    return None


def _equal_decimal_comma(
    gold: Reading, answer: Reading, scalar: Scalar, group: Group, policy: GradingPolicy
) -> bool | None:
    """0,111 for 0.111: only where the comma cannot separate a list of two whole numbers."""
    parts = [item.text for item in group.items if isinstance(item, Scalar)]
    written = ",".join(parts)
    may_be_decimal = len(parts) == 2 and _DECIMAL_COMMA.fullmatch(written) and "." in scalar.text
    if may_be_decimal and (group is answer or parts[0].lstrip("-") == "0"):
        return _equal_scalars(Scalar(written.replace(",", ".")), Scalar(scalar.text), policy)
    return False if parses(scalar.text) else None


def _equal_equations(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        if gold.label and answer.label:
            values = _equal_sides(gold, answer, policy)
            if gold.label == answer.label or values is False:
                return values
            return False if re.search(r"\d", gold.label + answer.label) else None
        if gold.label and not answer.label and _is_constant(_value(gold)):
            return None if _is_constant(answer.sides[0]) else False
        return _same_solutions(gold, answer)
    if isinstance(gold, Equation):
        if gold.label or _is_constant(gold.sides[0]):
            return equal(_value(gold), answer, policy)
        return False if isinstance(answer, Scalar) and _is_constant(answer) else None
    assert isinstance(answer, Equation)
    consistent = _consistent(answer, policy)
    if consistent is not True:
        return consistent
    return equal(gold, _value(answer), policy)


def _equal_sides(gold: Equation, answer: Equation, policy: GradingPolicy) -> bool | None:
    """Named values: chains of one length side by side, else the last sides of consistent chains."""
    if len(gold.sides) == len(answer.sides):
        return _all_pairs(Group("chain", gold.sides), Group("chain", answer.sides), policy)
    consistent = _consistent(answer, policy)
    return equal(_value(gold), _value(answer), policy) if consistent is True else consistent


def _value(equation: Equation) -> Reading:
    return equation.sides[-1]


def _is_constant(reading: Reading) -> bool:
    return isinstance(reading, Scalar) and not has_symbols(reading)


def _consistent(equation: Equation, policy: GradingPolicy) -> bool | None:
    """Whether the constant sides of a chain agree: 17 = 42 is no way to say 42."""
    constants = [side for side in equation.sides if _is_constant(side)]
    verdicts = [equal(constants[0], side, policy) for side in constants[1:]]
    return False if False in verdicts else None if None in verdicts else True


def _same_solutions(gold: Equation, answer: Equation) -> bool | None:
    try:
        differences = [_difference(equation) for equation in (gold, answer)]
        names = [symbols(node) for node in differences]
        if len(names[0] | names[1]) < 2:
            return None
        return numeric.proportional(*differences)
    except Undecided:
        return None


def _difference(equation: Equation) -> Node:
    texts = [equation.label] if equation.label else []
    for side in equation.sides:
        if not isinstance(side, Scalar) or side.percent or side.unit:
            raise Undecided("a side that is not a scalar")
        texts.append(side.text)
    if len(texts) != 2:
        raise Undecided("a chain")
    return Apply("add", (parse(texts[0]), Apply("neg", (parse(texts[1]),))))
