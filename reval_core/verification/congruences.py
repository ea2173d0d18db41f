"""Congruences: residues of a modulus, against each other and against plain numbers.

x \\equiv 3 \\pmod 7 is a class of numbers: 10 and -4 are other names of it. It is neither the number 3 nor x = 3. A
plain number is right for a residue, and a residue for it (`find the remainder`), where the residue is reduced.
"""

from __future__ import annotations

from reval_core.verification import exact
from reval_core.verification.parser import parse
from reval_core.verification.readings import Congruence, Equation, Group, Reading, Scalar
from reval_core.verification.tree import Undecided


def made(label: str, values: Reading, modulus: str) -> Congruence | None:
    """The congruence of a name (or "") with what stands before its modulus; None for what is no whole numbers."""
    if isinstance(values, Equation) and values.label and len(values.sides) == 1 and not label:
        label, values = values.label, values.sides[0]  # x = 3 \\pmod 7
    residues = _whole_numbers(values)
    return Congruence(label, residues, int(modulus)) if residues and int(modulus) > 0 else None


def equal(gold: Reading, answer: Reading, *, bare_too: bool) -> bool:
    """Whether two readings, one of them a congruence, are the same answer; `bare_too`: the modulus may be left out."""
    if isinstance(gold, Congruence) and isinstance(answer, Congruence):
        names = {gold.label.casefold(), answer.label.casefold()} - {""}
        return len(names) < 2 and gold.modulus == answer.modulus and _classes(gold) == _classes(answer)
    if not bare_too:
        return False
    if isinstance(answer, Congruence):
        reduced = all(0 <= residue < answer.modulus for residue in answer.residues)
        return reduced and _same_numbers(answer, gold)
    assert isinstance(gold, Congruence)
    if isinstance(answer, Equation) and answer.label and len(answer.sides) == 1 and not gold.label:
        answer = answer.sides[0]
    return _same_numbers(gold, answer)


def _same_numbers(congruence: Congruence, values: Reading) -> bool:
    numbers = _whole_numbers(values)
    return numbers is not None and sorted(numbers) == sorted(congruence.residues)


def _classes(congruence: Congruence) -> set[int]:
    return {residue % congruence.modulus for residue in congruence.residues}


def _whole_numbers(values: Reading) -> tuple[int, ...] | None:
    """The whole numbers that a value or a list is; None for anything else."""
    if isinstance(values, Group) and values.kind in ("list", "plusminus"):
        found = [_whole_numbers(item) for item in values.items]
        return None if None in found else tuple(number for numbers in found for number in numbers or ())
    if not isinstance(values, Scalar) or values.percent or values.unit:
        return None
    try:
        number = exact.rational(parse(values.text))
    except Undecided:
        return None
    return (int(number),) if number.denominator == 1 else None
