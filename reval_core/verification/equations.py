"""Comparing equations: what an equation claims, and whether its sides are a way to the value that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable

from reval_core.verification import named, numeric, relations
from reval_core.verification.names import names_a_quantity
from reval_core.verification.parser import parse
from reval_core.verification.readings import Equation, Group, Opaque, Reading, Scalar
from reval_core.verification.scalars import has_symbols, is_constant
from reval_core.verification.tree import Apply, Node, Undecided, symbols
from reval_core.verification.verdict import conjunction

_LETTERS = re.compile(r"(?<![\\a-zA-Z])(?!(?:pi|ln)(?![a-zA-Z]))[a-zA-Z]{1,2}(?![a-zA-Z])")
_CALL = re.compile(r"(\w+)\(([a-zA-Z])\)")

Compare = Callable[[Reading, Reading], bool | None]
"""Whether two readings are the same answer: gold, answer."""


def equal(gold: Reading, answer: Reading, compare: Compare) -> bool | None:
    """Whether two readings, one of them an equation, are the same answer; None when undecided.

    Args:
        gold: the right answer.
        answer: what is judged.
        compare: whether two parts are the same.
    """
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        return _equal_two_equations(gold, answer, compare)
    if isinstance(gold, Equation):
        if gold.label or is_constant(gold.sides[0]):
            return compare(_value(gold), answer)
        return False if isinstance(answer, Scalar) and is_constant(answer) else None
    assert isinstance(answer, Equation)
    if isinstance(gold, Group):
        value = named.in_usual_order(answer)
        if value is not None:
            return compare(gold, value)
    return _by_value(gold, answer, compare)


def _equal_two_equations(gold: Equation, answer: Equation, compare: Compare) -> bool | None:
    if gold.label and answer.label:
        answer = _in_the_variable_of(gold, answer)
        if gold.label != answer.label and not _same_name(gold, answer):
            same = _same_solutions(gold, answer)
            if same is not None:
                return same
            numbered = re.search(r"\d", gold.label + answer.label) is not None
            apart = compare(_value(gold), _value(answer)) is False
            return False if apart or numbered or relations.is_condition(gold) else None
        if len(gold.sides) == len(answer.sides) > 1:
            return conjunction([compare(g, a) for g, a in zip(gold.sides, answer.sides, strict=True)])
        return _by_value(_value(gold), answer, compare)
    if not gold.label and all(is_constant(side) for side in gold.sides):
        return _by_value(_value(gold), answer, compare)
    if gold.label and not answer.label and is_constant(_value(gold)):
        constant = all(is_constant(side) for side in answer.sides)
        return _by_value(_value(gold), answer, compare) if constant else False
    return _same_solutions(gold, answer)


def _in_the_variable_of(gold: Equation, answer: Equation) -> Equation:
    """f(t) = t + 1 as f(x) = x + 1 for a gold that says f(x): what a function's variable is called is no matter."""
    calls = [_CALL.fullmatch(side.label) for side in (gold, answer)]
    value = answer.sides[-1]
    if calls[0] is None or calls[1] is None or calls[0][1] != calls[1][1] or not isinstance(value, Scalar):
        return answer
    wanted, used = calls[0][2], calls[1][2]
    if wanted == used or len(answer.sides) > 1:
        return answer
    if not _uses(value, used) or _uses(value, wanted) or _uses(gold.sides[-1], used):
        return answer
    text = _LETTERS.sub(lambda letters: letters.group().replace(used, f" {wanted} "), value.text)
    return Equation(gold.label, (Scalar(text, value.percent, value.unit),))


def _uses(value: Reading, letter: str) -> bool:
    """Whether a value has a variable; True for what is not read."""
    try:
        return not isinstance(value, Scalar) or letter in symbols(parse(value.text))
    except Undecided:
        return True


def _same_name(gold: Equation, answer: Equation) -> bool:
    """y = and f(x) = name the same where the values have at most the function's own variable."""
    names = gold.label, answer.label
    if set(names) <= {"y", "f(x)", "y(x)", "f"} or names[0].casefold() == names[1].casefold():
        return True
    calls = [re.fullmatch(r"(\w+)\([a-z]\)", name) for name in names]
    constant = is_constant(_value(gold)) and is_constant(_value(answer))
    return constant and calls[0] is not None and calls[1] is not None and calls[0][1] == calls[1][1]


def _value(equation: Equation) -> Reading:
    return equation.sides[-1]


def _by_value(wanted: Reading, answer: Equation, compare: Compare) -> bool | None:
    """An equation is right when its value is and its sides lead to it."""
    consistent = _leads_to(answer, compare)
    return compare(wanted, _value(answer)) if consistent is True else consistent


def _leads_to(equation: Equation, compare: Compare) -> bool | None:
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
        verdict = compare(last, side)
        if verdict is not True and (isinstance(side, Opaque) or (isinstance(side, Scalar) and has_symbols(side))):
            verdict = (named and is_constant(last)) or _names_a_quantity(side)
        elif verdict is None and isinstance(side, Scalar):
            verdict = False
        verdicts.append(verdict)
    if named and False in verdicts and True in verdicts and verdicts.count(False) == 1:
        computed = [
            isinstance(side, Scalar) and re.search(r"\d\s?[-+*/\\^]", side.text) for side in equation.sides[:-1]
        ]
        if any(ok and bool(done) for ok, done in zip(verdicts, computed, strict=True)):
            return True
    return conjunction(verdicts)


def _mentions(value: Scalar, label: str) -> bool:
    """Whether a value has the variable that it is said to be: x = 2x + 1."""
    try:
        return label in symbols(parse(value.text))
    except Undecided:
        return False


def _names_a_quantity(side: Scalar | Opaque) -> bool:
    return names_a_quantity(side.text) and not (isinstance(side, Scalar) and side.percent)  # x% is x/100


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
