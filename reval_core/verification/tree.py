"""Trees of scalar mathematics: what the parser makes, and what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


class Undecided(Exception):
    """The text is outside the grammar, or the values cannot be told apart here."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal, exact. `decimals` is the count of digits after the point, None without a point."""

    value: Fraction
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, its subscript part of the name."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation or function on sub-trees; `op` is one of OPERATIONS or FUNCTIONS, or a constant."""

    op: str
    args: tuple[Node, ...] = ()


Node = Number | Symbol | Apply


def leaves(node: Node) -> Iterator[Node]:
    """Every node of the tree, parents first."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        if isinstance(current, Apply):
            pending.extend(current.args)


def symbols(node: Node) -> frozenset[str]:
    """The variables that occur in the tree."""
    return frozenset(leaf.name for leaf in leaves(node) if isinstance(leaf, Symbol))


def replaced(node: Node, old: Node, new: Node) -> Node:
    """The tree with `new` wherever it has `old`."""
    if node == old:
        return new
    if isinstance(node, Apply):
        return Apply(node.op, tuple(replaced(arg, old, new) for arg in node.args))
    return node
