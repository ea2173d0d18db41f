"""Lists and sums whose middle is left out: 1, 3, \\ldots, 9 is 1, 3, 5, 7, 9."""

from __future__ import annotations

import re
from fractions import Fraction

from reval_core.verification import exact
from reval_core.verification.parser import parse
from reval_core.verification.readings import Group, Reading, Scalar, Words
from reval_core.verification.tree import Undecided

DOTS = Words("\\ldots")
"""What stands for the terms that are left out."""

_AS_TERM = re.compile(r"(?<=,)\s?\\ldots\s?(?=,|$|\\?[)\]}])")
_MOST_TERMS = 2_000
_LONGEST_SUM = 200


def without_dots(text: str) -> str:
    """A normalised text without the dots that stand where a term of a list would."""
    return _AS_TERM.sub("", text)


def has_dots(group: Group) -> bool:
    """Whether terms are left out."""
    return DOTS in group.items


def equal(gold: Group, answer: Group) -> bool | None:
    """Whether two lists or two sets, one of them with dots, are the same numbers; None when that is not plain."""
    left, right = _numbers(gold), _numbers(answer)
    if left is None or right is None:
        return None
    if gold.kind == answer.kind == "list":
        return sorted(left) == sorted(right)
    return set(left) == set(right)


def total(text: str) -> Fraction | None:
    """The value of 1+2+\\ldots+15, a sum of numbers in equal steps; None for any other text."""
    if len(text) > _LONGEST_SUM or DOTS.text not in text:
        return None
    terms = [term.strip() for term in text.split("+")]
    items = tuple(DOTS if term == DOTS.text else Scalar(term) for term in terms)
    found = _numbers(Group("list", items)) if items.count(DOTS) == 1 else None
    return None if found is None else sum(found, Fraction(0))


def _numbers(group: Group) -> list[Fraction] | None:
    """The rational numbers of a group, left out ones as well; None where they are no arithmetic progression."""
    values = [_value(item) for item in group.items if item != DOTS]
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return None
    if not has_dots(group):
        return found
    at = group.items.index(DOTS)
    return _filled(found[:at], found[at:]) if group.items.count(DOTS) == 1 else None


def _filled(before: list[Fraction], after: list[Fraction]) -> list[Fraction] | None:
    """Two or more terms, those between and one or more at the end, all in equal steps."""
    if len(before) < 2 or not after or before[0] == before[1]:
        return None
    step = before[1] - before[0]
    count = (after[-1] - before[0]) / step
    if count.denominator != 1 or not len(before) + len(after) <= count + 1 <= _MOST_TERMS:
        return None
    whole = [before[0] + step * index for index in range(int(count) + 1)]
    return whole if whole[: len(before)] == before and whole[-len(after) :] == after else None


def _value(item: Reading) -> Fraction | None:
    if not isinstance(item, Scalar) or item.percent or item.unit:
        return None
    try:
        return exact.rational(parse(item.text))
    except Undecided:
        return None
