"""What `or` joins: solutions of one unknown, which are a list; alternative statements; one value in two forms."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from reval_core.verification import numeric
from reval_core.verification.parser import parse
from reval_core.verification.readings import Equation, Group, Reading, Scalar
from reval_core.verification.tree import Apply, Node, Number, Undecided, symbols
from reval_core.verification.verdict import GradingPolicy

EITHER = "either"
"""The kind of a group of statements of which one holds: I or II, x = 1 or y = 2."""

_MOST_FORMS = 4


def joined_by_or(found: Group) -> Reading:
    """What a list is whose parts are joined by `or`."""
    names = [item.label for item in found.items if isinstance(item, Equation) and item.label]
    if len(names) == len(found.items) and len(set(names)) == len(names):
        return Group(EITHER, found.items)
    return found.items[0] if _one_value(found) else found


def _one_value(found: Group) -> bool:
    """Whether the parts are one constant in different forms: 1/2 or 0.5. The same form twice is two solutions."""
    values = [item for item in found.items if isinstance(item, Scalar)]
    if not len(values) == len(found.items) <= _MOST_FORMS or len(
        {(value.text, value.percent) for value in values}
    ) < len(values):
        return False
    if len({value.unit for value in values}) > 1:
        return False
    try:
        trees = [_tree(value) for value in values]
        return all(numeric.equal(one, other, GradingPolicy()) for one, other in pairwise(trees))
    except Undecided:
        return False


def _tree(value: Scalar) -> Node:
    tree = parse(value.text)
    if symbols(tree):
        raise Undecided("not constant")
    return Apply("div", (tree, Number(Fraction(100)))) if value.percent else tree
