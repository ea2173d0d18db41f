"""The path of an answer through the tiers, for people: what was extracted, how both sides read, what each tier said."""

from __future__ import annotations

from dataclasses import dataclass

from reval_core.verification import readings
from reval_core.verification.tiers import TIERS, Case, case_of, clean_gold, symbolic_text
from reval_core.verification.units import Unit
from reval_core.verification.verifier import Verifier

_BRACKETS = {"()": "a tuple or open interval", "[]": "a closed interval", "(]": "an interval", "[)": "an interval"}
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the path: who spoke and what was said."""

    tier: str
    said: str


def explain(verifier: Verifier, gold: str, text: str, *, completion: bool = False) -> list[Step]:
    """The steps by which the verifier comes to its verdict.

    Args:
        verifier: whose extraction, policy and workers are used.
        gold: as its source writes it.
        text: the answer alone, or a whole completion.
        completion: which of the two.
    """
    steps = [Step("gold", clean_gold(gold)[:_SHOWN])]
    answer: str | None = text
    if completion:
        answer = verifier.find_answer(gold, text)
        found = "nothing: there is no answer to grade" if answer is None else answer[:_SHOWN]
        steps.append(Step(f"extraction, {verifier.extraction}", found))
    if answer is None:
        return steps
    case = case_of(gold, answer, verifier.policy)
    for name, tier in TIERS.items():
        verdict = tier(case)
        if name == "text" and (verdict is None or not verdict.correct):
            steps.append(Step("normalised", f"{case.left[:_SHOWN]}  |  {case.right[:_SHOWN]}"))
        if name == "structure":
            steps += _readings(case)
        if verdict is not None:
            steps.append(Step(name, f"{verdict.status}: {verdict.details}"))
            return steps
        steps.append(Step(name, _SILENT[name]))
    sides = "  |  ".join(symbolic_text(side)[:_SHOWN] for side in (clean_gold(gold), answer))
    verdict = verifier.grade(gold, answer)
    steps += [Step("given to sympy", sides), Step("symbolic", f"{verdict.status}: {verdict.details}")]
    return steps


_SILENT = {
    "size": "something to compare, within 4,000 characters",
    "choice": "the gold is no letter",
    "text": "not the same text",
    "exact": "not two whole numbers or times",
    "limits": "within all limits",
    "admission": "sympy would read all of it, at a bounded cost",
    "structure": "undecided: a part is outside the strict grammar, or equal only somewhere",
}


def _readings(case: Case) -> list[Step]:
    gold, answer = case.readings
    return [Step("gold reads as", describe(gold)), Step("answer reads as", describe(answer))]


def describe(read: readings.Reading) -> str:
    """What a text was read as, in words."""
    if isinstance(read, readings.Scalar):
        unit = f" in {_unit(read.unit)}" if read.unit else ""
        more = " and more digits" if read.goes_on else ""
        return f"the value {read.text}{more}{' percent' if read.percent else ''}{unit}"
    if isinstance(read, readings.Equation):
        label = f"{read.label} named as " if read.label else ""
        return label + " = ".join(describe(side) for side in read.sides)
    if isinstance(read, readings.Congruence):
        label = f"{read.label} as " if read.label else ""
        return f"{label}the numbers that are {', '.join(map(str, read.residues))} modulo {read.modulus}"
    if isinstance(read, readings.Conditional):
        return f"{describe(read.claim)}; under the condition {' '.join(read.words) or 'that says nothing'}"
    if isinstance(read, readings.Words):
        return f"the words {read.text!r}"
    if isinstance(read, readings.Group):
        kind = _BRACKETS.get(read.kind, f"a {read.kind}")
        return f"{kind} of {len(read.items)}: " + "; ".join(describe(item) for item in read.items)
    if isinstance(read, readings.Refused):
        return f"nothing that could be right: {read.why}"
    return f"what the strict grammar does not read: {read.text}"


def _unit(unit: Unit) -> str:
    factor = "" if unit.factor == 1 else f"{unit.factor} x "
    return unit.counted or factor + " ".join(name if power == 1 else f"{name}^{power}" for name, power in unit.powers)
