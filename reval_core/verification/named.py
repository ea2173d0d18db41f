"""Values that are named together: which value belongs to which name in (y, x) = (3, 5), a:b = 1:2 or x = 5, y = 3."""

from __future__ import annotations

from reval_core.verification import relations
from reval_core.verification.readings import Equation, Group, Reading, Scalar

_RUNS = ("abcdefgh", "ijk", "mn", "pqr", "uvw", "xyz")
"""Letters that everybody gives in this order: without names, (1, 2) is x = 1 and y = 2."""


def labels(group: Group) -> list[str] | None:
    """The names of a group of named values; None when a part has none."""
    names = [item.label if isinstance(item, Equation) else "" for item in group.items]
    return names if names and all(names) else None


def together(gold: Reading, answer: Reading) -> tuple[Reading, Reading] | None:
    """Both without their names, the values in one order; None unless a tuple of names meets the same names."""
    names = _names(gold), _names(answer)
    if len(names[0]) < 2 or set(names[0]) != set(names[1]):
        return None
    if not isinstance(gold, Equation) and not isinstance(answer, Equation):
        return None
    sides = _sorted(gold), _sorted(answer)
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def in_usual_order(equation: Equation) -> Reading | None:
    """What a tuple of names is, in the order in which it is written without names; None for any other equation."""
    names = _names(equation)
    if len(names) < 2 or len(equation.sides) != 1:
        return None
    return _sorted(equation) if _has_usual_order(names) else equation.sides[0]


def _names(read: Reading) -> tuple[str, ...]:
    """The names of a tuple or ratio of them on the left, or of a list of equations; () when one stands twice."""
    found: list[str] | None = None
    if isinstance(read, Equation):
        found = [part.strip() for part in relations.split_top(read.label.strip("()"), ",:")]
    elif isinstance(read, Group) and read.kind == "list":
        found = labels(read)
    return tuple(found) if found and len(set(found)) == len(found) else ()


def _has_usual_order(names: tuple[str, ...]) -> bool:
    """Whether the names are letters of one run, or one letter with different subscripts: (m, n), (x_1, x_2)."""
    if len({name.partition("_")[0] for name in names}) == 1:
        return True
    return any(set(names) <= set(run) or set(names) <= set(run.upper()) for run in _RUNS)


def _sorted(read: Reading) -> Reading | None:
    """The values in the order of their names; None where the value has no part for each name."""
    names = _names(read)
    order = sorted(range(len(names)), key=names.__getitem__)
    if isinstance(read, Group):
        return Group("()", tuple(read.items[index] for index in order))
    if not isinstance(read, Equation) or len(read.sides) != 1:
        return None
    return _permuted(read.sides[0], order)


def _permuted(value: Reading, order: list[int]) -> Reading | None:
    """A tuple, a ratio or a column with its parts in another order, or several of them in a list or set."""
    if not isinstance(value, Group):
        return None
    if value.kind in ("list", "set", "singleton") and all(isinstance(item, Group) for item in value.items):
        items = [_permuted(item, order) for item in value.items]
        return None if None in items else Group(value.kind, tuple(item for item in items if item is not None))
    bare = value.kind == "list" and all(isinstance(item, Scalar) for item in value.items)  # x, y = 1, 2
    if not bare and value.kind not in relations.BRACKETS | {"ratio", "matrix"}:
        return None
    if len(value.items) != len(order):
        return None
    return Group("()" if bare else value.kind, tuple(value.items[index] for index in order))
