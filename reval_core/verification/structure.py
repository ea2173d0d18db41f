"""Comparing answers part by part: scalars exactly or numerically, groups element by element.

`equal` returns True or False when it is sure, else None, which leaves the pair to the symbolic tier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from reval_core.verification import exact, numeric, relations, spans, units
from reval_core.verification.normalise import compact
from reval_core.verification.parser import Apply, Node, Number, Undecided, parse, symbols
from reval_core.verification.reading import has_symbols, parses
from reval_core.verification.readings import Equation, Group, Opaque, Reading, Refused, Scalar, Words
from reval_core.verification.verdict import GradingPolicy

_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")
_CONSTANT_OF_INTEGRATION = re.compile(r"(.+)\+\s?[CcKk](?:_\{?\d\}?)?")
_INFINITY = Apply("infinity")
_LOOSE = frozenset({"list", "set", "plusminus"})
_MOST_PAIRS = 400


def equal(gold: Reading, answer: Reading, policy: GradingPolicy) -> bool | None:
    """Whether two readings are the same answer; None when undecided."""
    if isinstance(gold, Refused) or isinstance(answer, Refused):
        return False
    answer = _without_conditions(gold, answer)
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


def _without_conditions(gold: Reading, answer: Reading) -> Reading:
    """`2^n - 1, n \\ge 1` for a gold without conditions: what is claimed, without where it holds."""
    if not isinstance(answer, Group) or answer.kind != "list" or isinstance(gold, Group | Words):
        return answer
    first, *rest = answer.items
    claims = isinstance(first, Scalar | Equation) and not relations.is_condition(first) and not _is_constant(first)
    return first if claims and all(relations.is_condition(item) for item in rest) else answer


def _equal_scalars(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    factor = units.ratio(gold.unit, answer.unit, drop=policy.drop_units)
    if factor is None:
        return False
    if factor != 1:
        answer = Scalar(f"({answer.text})\\cdot\\frac{{{factor.numerator}}}{{{factor.denominator}}}", answer.percent)
    if gold.percent != answer.percent:
        return False if gold.unit or answer.unit else _equal_percent(gold, answer, policy)
    constants = _CONSTANT_OF_INTEGRATION.fullmatch(gold.text), _CONSTANT_OF_INTEGRATION.fullmatch(answer.text)
    if constants[0] and constants[1]:
        return _equal_scalars(Scalar(constants[0][1].strip()), Scalar(constants[1][1].strip()), policy)
    if gold.text == answer.text:
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


def _without_letter(gold: Scalar, answer: Scalar, policy: GradingPolicy) -> bool | None:
    """`12 m` against 12: a unit of one letter, where the other side has no variables. True or None."""
    (left, first), (right, second) = units.split_letter(gold.text), units.split_letter(answer.text)
    if (first is None) == (second is None) or gold.unit or answer.unit:
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
            fraction = Apply("div", (parse(marked.text), Number(Fraction(100))))
            verdicts.append(numeric.equal(fraction, parse(other.text), policy))
        except Undecided:
            verdicts.append(None)
    return True if True in verdicts else None if None in verdicts else False


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
    if isinstance(words, Words) and isinstance(other, Scalar) and compact(other.text).casefold() == words.text:
        return True
    return False if isinstance(other, Scalar) and parses(other.text) else None


def _equal_groups(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    kinds = {gold.kind, answer.kind}
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
    names = [_labels(group) for group in (gold, answer)]
    if names[0] and names[1] and len(set(names[0])) > 1:
        if len(set(names[0])) == len(names[0]) and set(names[0]) == set(names[1]) and len(names[1]) == len(names[0]):
            return _all_pairs(_ordered(gold), _ordered(answer), policy)
    elif any(name and len(set(name)) == len(name) for name in names):
        return _all_pairs(gold, answer, policy)
    points = all(isinstance(item, Group) for group in (gold, answer) for item in group.items)
    if {gold.kind, answer.kind} == {"list"} and not points:
        return _all_pairs(gold, answer, policy) if policy.ordered_lists else _one_to_one(gold, answer, policy)
    return _matching(gold, answer, policy)


def _labels(group: Group) -> list[str] | None:
    """The names of a group of named values; None when a part has none."""
    names = [item.label if isinstance(item, Equation) else "" for item in group.items]
    return names if names and all(names) else None


def _ordered(group: Group) -> Group:
    """A list of values with different names in the order of the names; any other group as it is."""
    names = _labels(group)
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
    """The first part over another; Opaque when one is more than a bare value."""
    left, right = ratio.items[0], ratio.items[index]
    if isinstance(left, Scalar) and isinstance(right, Scalar) and not (left.unit or right.unit):
        return Scalar(f"({left.text})/({right.text})")
    return Opaque("ratio")


def _all_pairs(gold: Group, answer: Group, policy: GradingPolicy) -> bool | None:
    if len(gold.items) != len(answer.items):
        return False
    return _conjunction([equal(g, a, policy) for g, a in zip(gold.items, answer.items, strict=True)])


def _conjunction(verdicts: Sequence[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


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
    if group.kind in ("()", "[]", "(]", "[)", "union", "list", "plusminus", "set"):
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
        return _equal_two_equations(gold, answer, policy)
    if isinstance(gold, Equation):
        if gold.label or _is_constant(gold.sides[0]):
            return equal(_value(gold), answer, policy)
        return False if isinstance(answer, Scalar) and _is_constant(answer) else None
    assert isinstance(answer, Equation)
    if isinstance(gold, Group) and gold.kind == "()" and answer.label.startswith("(") and len(answer.sides) == 1:
        return _equal_named_tuple(gold, answer, policy)
    consistent = _leads_to(answer, policy)
    return consistent if consistent is not True else equal(gold, _value(answer), policy)


def _equal_two_equations(gold: Equation, answer: Equation, policy: GradingPolicy) -> bool | None:
    if gold.label and answer.label:
        if gold.label != answer.label and not _same_name(gold, answer):
            same = _same_solutions(gold, answer)
            if same is not None:
                return same
            return (
                False
                if equal(_value(gold), _value(answer), policy) is False
                or re.search(r"\d", gold.label + answer.label)
                or relations.is_condition(gold)
                else None
            )
        if len(gold.sides) == len(answer.sides) > 1:
            return _conjunction([equal(g, a, policy) for g, a in zip(gold.sides, answer.sides, strict=True)])
        consistent = _leads_to(answer, policy)
        return equal(_value(gold), _value(answer), policy) if consistent is True else consistent
    if not gold.label and all(_is_constant(side) for side in gold.sides):
        consistent = _leads_to(answer, policy)
        return equal(_value(gold), _value(answer), policy) if consistent is True else consistent
    if gold.label and not answer.label and _is_constant(_value(gold)):
        if all(_is_constant(side) for side in answer.sides):
            consistent = _leads_to(answer, policy)
            return equal(_value(gold), _value(answer), policy) if consistent is True else consistent
        return False
    return _same_solutions(gold, answer)


def _equal_named_tuple(gold: Group, answer: Equation, policy: GradingPolicy) -> bool | None:
    """(x, y) = (1, 2) for (1, 2); (y, x) = (2, 1) says the same."""
    names, value = answer.label.strip("()").split(","), _value(answer)
    if not isinstance(value, Group) or len(value.items) != len(names):
        return equal(gold, value, policy)
    ordered = sorted(range(len(names)), key=names.__getitem__)
    in_order = Group(value.kind, tuple(value.items[index] for index in ordered))
    return equal(gold, in_order if len(set(names)) == len(names) else value, policy)


def _same_name(gold: Equation, answer: Equation) -> bool:
    """y = and f(x) = name the same where the values have at most the function's own variable."""
    names = gold.label, answer.label
    if set(names) <= {"y", "f(x)", "y(x)", "f"} or names[0].casefold() == names[1].casefold():
        return True
    calls = [re.fullmatch(r"(\w+)\([a-z]\)", name) for name in names]
    constant = _is_constant(_value(gold)) and _is_constant(_value(answer))
    return constant and calls[0] is not None and calls[1] is not None and calls[0][1] == calls[1][1]


def _value(equation: Equation) -> Reading:
    return equation.sides[-1]


def _is_constant(reading: Reading) -> bool:
    return isinstance(reading, Scalar) and not has_symbols(reading)


def _leads_to(equation: Equation, policy: GradingPolicy) -> bool | None:
    """Whether the sides before the last are ways to it: 17 = 42 and x^2 = 42 are no ways to say 42.

    Constant sides must equal the last one; where one slips, another that was computed must still support the
    last (x = 5+5+1 = 7 = 11). A formula with variables may come before a number that it gives, if a name stands
    first or the formula has several variables: A = \\pi r^2 = 25\\pi, x + y = 5.
    """
    last = _value(equation)
    named = bool(equation.label)
    if named and isinstance(last, Scalar) and _mentions(last, equation.label):
        return False
    verdicts: list[bool | None] = []
    for side in equation.sides[:-1]:
        verdict = equal(last, side, policy)
        if verdict is not True and (isinstance(side, Opaque) or (isinstance(side, Scalar) and has_symbols(side))):
            verdict = (named and _is_constant(last)) or _names_a_quantity(side)
        elif verdict is None and isinstance(side, Scalar):
            verdict = False
        verdicts.append(verdict)
    if named and False in verdicts and True in verdicts and verdicts.count(False) == 1:
        computed = [
            isinstance(side, Scalar) and re.search(r"\d\s?[-+*/\\^]", side.text) for side in equation.sides[:-1]
        ]
        if any(ok and bool(done) for ok, done in zip(verdicts, computed, strict=True)):
            return True
    return _conjunction(verdicts)


def _mentions(value: Scalar, label: str) -> bool:
    """Whether a value has the variable that it is said to be: x = 2x + 1."""
    try:
        return label in symbols(parse(value.text))
    except Undecided:
        return False


def _names_a_quantity(side: Scalar | Opaque) -> bool:
    """Whether a left side is what was asked for (x + y, \\sin\\theta) and no equation to be solved (x^2, 2x)."""
    try:
        tree = parse(side.text)
    except Undecided:
        return not side.text.startswith(("-", *"0123456789"))
    functions = ("sin", "cos", "tan", "abs", "ln", "floor", "ceil", "div")
    asked = isinstance(tree, Apply) and tree.op in functions and not isinstance(tree.args[0], Number)
    return len(symbols(tree)) > 1 or asked


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
