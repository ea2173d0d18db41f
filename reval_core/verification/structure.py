"""Comparing answers part by part: scalars exactly or numerically, groups element by element.

`equal` returns True or False when it is sure, else None, which leaves the pair to the symbolic tier.
"""

from __future__ import annotations

import re
from fractions import Fraction

from reval_core.verification import (
    alternatives,
    conditions,
    congruences,
    equations,
    exact,
    integrals,
    named,
    numeric,
    piecewise,
    relations,
    sequences,
    spans,
    units,
)
from reval_core.verification.normalise import compact
from reval_core.verification.parser import parse
from reval_core.verification.readings import (
    Conditional,
    Congruence,
    Equation,
    Group,
    Opaque,
    Reading,
    Refused,
    Scalar,
    Words,
)
from reval_core.verification.scalars import has_symbols, is_constant, parses
from reval_core.verification.tree import Apply, Node, Number, Undecided, symbols
from reval_core.verification.verdict import GradingPolicy, conjunction

_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")
_MINUTES = re.compile(r"0\d+")
_LETTER_UNIT = re.compile(r".*(?:[a-zA-Z]|m\s?\^\s?\{?[23]\}?)", re.DOTALL)
_SPACED_UNIT = re.compile(r"-?[\d.]+(?:\s[a-zA-Z]|(?:\s?\\pi)?\s?m\s?\^\s?\{?[23]\}?)")
_INFINITY = Apply("infinity")
_DEGREE, _RADIAN = units.read("degree"), units.read("radian")
_LOOSE = frozenset({"list", "set", "plusminus"})
_MOST_PAIRS = 400


def equal(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    """Whether two readings are the same answer; None when undecided."""
    if isinstance(gold, Refused) or isinstance(answer, Refused):
        return False
    answer = integrals.with_letter(_without_conditions(gold, answer))
    together = named.together(gold, answer)
    if together is not None:
        return equal(*together, policy)
    if isinstance(gold, Conditional) or isinstance(answer, Conditional):
        return conditions.equal(gold, answer, lambda g, a: equal(g, a, policy))
    if isinstance(gold, Congruence) or isinstance(answer, Congruence):
        return congruences.equal(gold, answer, bare_too=policy.drop_units)
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        return equations.equal(gold, answer, lambda g, a: equal(g, a, policy))
    if isinstance(gold, Opaque) or isinstance(answer, Opaque):
        return None
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _equal_words(gold, answer)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _equal_scalars(gold, answer, policy)
    if isinstance(gold, Group) and isinstance(answer, Group):
        return _equal_groups(gold, answer, policy)
    return _equal_mixed(gold, answer, policy)


def _without_conditions(gold: Reading, answer: Reading) -> Reading:
    """`2^n - 1, n \\ge 1` for a gold without conditions: what is claimed, without where it holds."""
    if not isinstance(answer, Group) or answer.kind != "list" or isinstance(gold, Group | Words):
        return answer
    first, *rest = answer.items
    claims = isinstance(first, Scalar | Equation) and not relations.is_condition(first) and not is_constant(first)
    return first if claims and all(relations.is_condition(item) for item in rest) else answer


def _equal_scalars(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    if _is_radians(gold) and _is_degrees(answer):
        gold, answer = Scalar(gold.text), _to_radians(answer)
    elif _is_degrees(gold) and _is_radians(answer):
        gold, answer = _to_radians(gold), Scalar(answer.text)
    factor = units.ratio(gold.unit, answer.unit, drop=policy.drop_units)
    if factor is None:
        return False
    if factor != 1:
        answer = Scalar(f"({answer.text})\\cdot\\frac{{{factor.numerator}}}{{{factor.denominator}}}", answer.percent)
    if gold.percent != answer.percent:
        return False if gold.unit or answer.unit else _equal_percent(gold, answer, policy)
    if gold.text == answer.text or _shows_digits(gold, answer, policy):
        return True
    plain = exact.equal_whole(gold.text, answer.text)
    if plain is None:
        plain = exact.equal_in_base(gold.text, answer.text)
    if plain is not None:
        return plain
    try:
        left, right = parse(gold.text), parse(answer.text)
    except Undecided:
        return None
    right = integrals.same_case(left, right)
    if integrals.has_constant(left) and integrals.equal(left, right, policy):
        return True
    if policy.drop_units and bool(symbols(left)) != bool(symbols(right)):
        shorter = _without_letter(gold, answer, policy)
        if shorter is not None:
            return shorter
    try:
        if _INFINITY in (left, right) or Apply("neg", (_INFINITY,)) in (left, right):
            return left == right
        return numeric.equal(left, right, policy)
    except Undecided:
        return None


def _shows_digits(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool:
    """Whether of two decimals, one of which goes on, the shorter is the longer one rounded or cut."""
    if not (gold.goes_on or answer.goes_on):
        return False
    fewer, more = sorted((gold, answer), key=lambda side: len(side.text))
    try:
        left, right = parse(fewer.text), parse(more.text)
        decimals = exact.is_decimal(left) and exact.is_decimal(right)
        return decimals and more.goes_on and numeric.shows_digits_of(left, right, policy)
    except Undecided:
        return False


def _is_degrees(angle: Scalar) -> bool:
    return angle.unit == _DEGREE and "\\pi" not in angle.text


def _is_radians(angle: Scalar) -> bool:
    """Whether a value is said to be in radians, or is a multiple of pi without a unit."""
    return angle.unit == _RADIAN or (angle.unit is None and not angle.percent and "\\pi" in angle.text)


def _to_radians(angle: Scalar) -> Scalar:
    return Scalar(f"({angle.text})\\cdot\\frac{{\\pi}}{{180}}")


def _without_letter(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    """`12 m` against 12: a unit of one letter, where the other side has no variables. True or None.

    The gold's letter is a variable (2s, \\frac{2}{3}h) unless it is written as a unit is, after a space.
    """
    (left, first), (right, second) = units.split_letter(gold.text), units.split_letter(answer.text)
    if (first is None) == (second is None) or gold.unit or answer.unit:
        return None
    if (_SPACED_UNIT if first else _LETTER_UNIT).fullmatch(gold.text if first else answer.text) is None:
        return None
    return _equal_scalars(Scalar(left), Scalar(right), policy) or None


def _equal_percent(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    """One side has a percent sign: equal as fractions, or with the sign ignored, as policy allows.

    The sign is never ignored beside a fraction between 0 and 1, which is one hundredth of what it says.
    """
    marked, other = (gold, answer) if gold.percent else (answer, gold)
    verdicts: list[bool | None] = []
    if policy.percent_sign_optional and not _is_proportion(other):
        verdicts.append(_equal_scalars(Scalar(marked.text), Scalar(other.text), policy))
    if has_symbols(marked):
        return None
    if policy.percent_equals_fraction:
        try:
            verdicts.append(numeric.equal(_hundredth(parse(marked.text)), parse(other.text), policy))
        except Undecided:
            verdicts.append(None)
    return True if True in verdicts else None if None in verdicts else False


def _hundredth(percent: Node) -> Node:
    """What a percentage is; of a decimal a decimal, which may be a rounded value."""
    if isinstance(percent, Number) and percent.decimals is not None:
        return Number(percent.value / 100, percent.decimals + 2)
    if isinstance(percent, Apply) and percent.op == "neg":
        return Apply("neg", (_hundredth(percent.args[0]),))
    return Apply("div", (percent, Number(Fraction(100))))


def _is_proportion(value: Scalar) -> bool:
    try:
        return 0 < exact.rational(parse(value.text)) < 1
    except Undecided:
        return False


def _equal_words(gold: Reading, answer: Reading) -> bool | None:
    if isinstance(gold, Words) and isinstance(answer, Words):
        left, right = (re.sub(r"^(?:the|a|an) ", "", re.sub(r"[^\w +/-]", "", side.text)) for side in (gold, answer))
        return left == right
    other = answer if isinstance(gold, Words) else gold
    words = gold if isinstance(gold, Words) else answer
    if isinstance(words, Words) and isinstance(other, Scalar):
        said = compact(other.text)
        if said == words.text or (len(said) > 1 and said.casefold() == words.text):
            return True
    return False if isinstance(other, Scalar) and parses(other.text) else None


def _equal_groups(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    kinds = {gold.kind, answer.kind}
    if gold.kind == answer.kind == piecewise.KIND:
        return piecewise.equal(gold, answer, lambda g, a: equal(g, a, policy))
    if alternatives.EITHER in kinds:
        return _matching(gold, answer, policy) if len(kinds) == 1 else False
    if kinds <= _LOOSE:
        return _equal_lists(gold, answer, policy)
    if "union" in kinds:
        sides = [Group("union", side.items) if side.kind == "list" else side for side in (gold, answer)]
        return _equal_spans(*sides)
    if gold.kind == answer.kind == "ratio":
        return _equal_ratios(gold, answer, policy)
    if gold.kind == answer.kind:
        return _all_pairs(gold, answer, policy)
    if kinds == {"list", "()"}:
        return _all_pairs(_ordered(gold), _ordered(answer), policy)  # a tuple whose brackets were left out
    if "matrix" in kinds and kinds & {"()", "[]"}:
        return _equal_vector(gold, answer, policy)
    if kinds <= relations.BRACKETS:
        if policy.open_equals_closed and len(gold.items) == len(answer.items) == 2:
            return _all_pairs(gold, answer, policy)
        return False if kinds != {"()", "[]"} or len(gold.items) == 2 else None
    if "singleton" in kinds and kinds & (_LOOSE | relations.BRACKETS):
        return None if len(gold.items) == len(answer.items) else False
    if "set" in kinds and kinds & relations.BRACKETS:
        bracketed = gold if gold.kind in relations.BRACKETS else answer
        return _matching(gold, answer, policy) if len(bracketed.items) > 2 else False
    return None


def _equal_lists(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    """Lists and sets: by their labels where they have any, in order where policy or labels say so."""
    if sequences.has_dots(gold) or sequences.has_dots(answer):
        same = sequences.equal(gold, answer)
        return _all_pairs(gold, answer, policy) or None if same is None else same
    names = [named.labels(group) for group in (gold, answer)]
    if names[0] and names[1] and len(set(names[0])) > 1:
        if len(set(names[0])) == len(names[0]) and set(names[0]) == set(names[1]) and len(names[1]) == len(names[0]):
            return _all_pairs(_ordered(gold), _ordered(answer), policy)
    elif any(name and len(set(name)) == len(name) for name in names):
        return _all_pairs(gold, answer, policy)
    points = all(isinstance(item, Group) for group in (gold, answer) for item in group.items)  # no double solutions
    if {gold.kind, answer.kind} == {"list"} and not points:
        return _all_pairs(gold, answer, policy) if policy.ordered_lists else _one_to_one(gold, answer, policy)
    return _matching(gold, answer, policy)


def _ordered(group: Group) -> Group:
    """A list of values with different names in the order of the names; any other group as it is."""
    names = named.labels(group)
    if names is None or len(set(names)) < len(names):
        return group
    by_name = dict(zip(names, group.items, strict=True))
    return Group(group.kind, tuple(by_name[name] for name in sorted(names)))


def _equal_spans(gold: Group, answer: Group) -> bool | None:
    left, right = relations.spans_of(gold), relations.spans_of(answer)
    if left is None or right is None:
        return None
    try:
        return spans.equal(left, right)
    except Undecided:
        return None


def _equal_ratios(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    """a:b:c up to a common factor; what may be a time of day only part by part."""
    if len(gold.items) != len(answer.items):
        return False
    if _is_clock(gold):
        return _all_pairs(gold, answer, policy)
    verdicts = [equal(_quotient(gold, index), _quotient(answer, index), policy) for index in range(1, len(gold.items))]
    return False if False in verdicts else None if None in verdicts else True


def _is_clock(ratio: Group) -> bool:
    parts = [item.text for item in ratio.items if isinstance(item, Scalar)]
    return len(ratio.items) == 2 and _CLOCK.fullmatch(":".join(parts)) is not None and len(parts) == 2


def _equal_vector(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    matrix, point = (gold, answer) if gold.kind == "matrix" else (answer, gold)
    rows = [row for row in matrix.items if isinstance(row, Group)]
    cells = rows[0].items if len(rows) == 1 else tuple(row.items[0] for row in rows)
    if any(len(row.items) != 1 for row in rows) and len(rows) != 1:
        nested = [item.items for item in point.items if isinstance(item, Group) and item.kind in ("()", "[]")]
        if len(nested) != len(point.items):
            return False
        pair = matrix, Group("matrix", tuple(Group("row", items) for items in nested))
        return _all_pairs(*(pair if matrix is gold else pair[::-1]), policy)
    pair = Group("()", cells), Group("()", point.items)
    return _all_pairs(*(pair if matrix is gold else pair[::-1]), policy)


def _quotient(ratio: Group, index: int = 1) -> Reading:
    """The first part over another; Opaque when one is more than a bare value, or minutes: 3:05."""
    left, right = ratio.items[0], ratio.items[index]
    if not (isinstance(left, Scalar) and isinstance(right, Scalar)) or left.unit or right.unit:
        return Opaque("ratio")
    if not _MINUTES.fullmatch(right.text):
        return Scalar(f"({left.text})/({right.text})")
    return Opaque("ratio")


def _all_pairs(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    if len(gold.items) != len(answer.items):
        return False
    return conjunction([equal(g, a, policy) for g, a in zip(gold.items, answer.items, strict=True)])


def _table(gold: Group, answer: Group, policy: GradingPolicy) -> list[list[bool | None]]:
    return [[_equal_elements(g, a, policy) for a in answer.items] for g in gold.items]


def _equal_elements(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    """As `equal`, but a set of one element among elements is no element: {{1}, {2}} is not {1, 2}."""
    nested = [isinstance(side, Group) and side.kind in ("set", "singleton") for side in (gold, answer)]
    return False if nested[0] != nested[1] else equal(gold, answer, policy)


def _one_to_one(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    """Equality as lists in any order: a value that stands twice on one side does so on the other."""
    if len(gold.items) != len(answer.items):
        return False
    if len(gold.items) ** 2 > _MOST_PAIRS:
        return _all_pairs(gold, answer, policy) or None
    table = _table(gold, answer, policy)
    free = set(range(len(answer.items)))
    for row in table:
        partner = next((index for index in sorted(free) if row[index]), None)
        if partner is None:
            return False if all(row[index] is False for index in free) else None
        free.remove(partner)
    return True


def _matching(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    """Equality as sets: every element has an equal one on the other side."""
    if len(gold.items) * len(answer.items) > _MOST_PAIRS:
        return None
    if min(len(gold.items), len(answer.items)) == 0:
        return len(gold.items) == len(answer.items)
    table = _table(gold, answer, policy)
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
    if group.kind in ("set", "singleton") and len(group.items) == 1 and isinstance(group.items[0], Scalar):
        only = group.items[0]
        return equal(scalar, only, policy) if scalar is gold else equal(only, scalar, policy)
    if group.kind == "ratio":
        if len(group.items) != 2 or (group is gold and _is_clock(group)):
            return False if parses(scalar.text) else None
        value = _quotient(group)
        return equal(scalar, value, policy) if scalar is gold else equal(value, scalar, policy)
    if group.kind == "matrix" and "\\begin" not in scalar.text:
        return False
    if group.kind in ("()", "[]", "(]", "[)", "union", "list", "plusminus", "set", alternatives.EITHER):
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
