"""What an answer can be: a value, a group of parts, an equation, a congruence, words, one of these under a condition;
or text that is not read, or says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from reval_core.verification.units import Unit


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; `percent` when it was followed by %, `unit` what it is in, None for nothing said.

    `goes_on` when dots say that a decimal has more digits than those written.
    """

    text: str
    percent: bool = False
    unit: Unit | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Parts in order. kind: list (no brackets), set, union, matrix, row, ratio, singleton, plusminus, two brackets."""

    kind: str
    items: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """Sides joined by =; `label` is the first side when that only names what follows, else "".

    An inequality in one variable is the equation of its name with an interval or a union of intervals.
    """

    label: str
    sides: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Congruence:
    """x \\equiv 1, 3 \\pmod 8: a name or "", the residues as they are written, and the modulus."""

    label: str
    residues: tuple[int, ...]
    modulus: int


@dataclass(frozen=True, slots=True)
class Conditional:
    """A claim and where it holds: the telling words, what a relation reads as, and how much that takes away.

    scope: all (for all n, n \\in \\mathbb{Z}), range (n > 1), special (n even, n = 1).
    """

    claim: Reading
    words: tuple[str, ...]
    relation: Reading | None
    scope: str


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, in lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Text that denies or contradicts itself: equal to nothing but the same text."""

    why: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """Text that the strict grammar does not read."""

    text: str


Reading = Scalar | Group | Equation | Congruence | Conditional | Words | Refused | Opaque
