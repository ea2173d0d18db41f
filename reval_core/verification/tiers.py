"""The order in which an answer is judged, as far as that can be done safely in this process."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from reval_core.verification import admission, choices, exact, limits, reading, structure
from reval_core.verification.arguments import with_brackets
from reval_core.verification.budget import allowance
from reval_core.verification.extraction import adjacent, boxes
from reval_core.verification.normalise import closed, compact, normalise, printable, same_words, strip_delimiters
from reval_core.verification.parser import parse
from reval_core.verification.readings import Reading, Scalar
from reval_core.verification.tree import Undecided
from reval_core.verification.verdict import GradingPolicy, Verdict, decided, failed

_MAX_RAW = 4_000
"""Characters of a gold or answer that are looked at; twice the limit of what is graded, for spaces and TeX's words."""
_MAX_DIGITS = 20_000
"""Of a number alone, which costs nothing to compare."""
_WORK = 45_000
"""Microseconds of counted work for all comparisons of one pair together."""
_HEDGE = re.compile(
    r"\\text ?\{(?! ?,? ?(?:or|and) ?\})[^{}]*(?:\d|\b(?:or|not|maybe|perhaps|either)\b)[^{}]*\}", re.IGNORECASE
)
"""Words or numbers inside \\text{}, beyond a plain `or`: math-verify would drop them and see one value."""
_OPEN_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{")
_MATHEMATICS = re.compile(r"\$[^$]*\$|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = 4
"""Words from which on a gold is a sentence rather than a name, a unit or `odd and prime`."""


def check_gold(gold: str) -> None:
    """Refuse a gold that no answer could ever be graded against.

    Raises ValueError that says why: empty, too large as text, or without any content. A gold whose value is over a
    limit (a binomial of millions) stays: an answer of the same text is right.
    """
    if not isinstance(gold, str):
        raise ValueError(f"the gold must be text, got {type(gold).__name__}")
    if not gold.strip():
        raise ValueError("the gold is empty")
    if _is_too_long(gold):
        raise ValueError(f"the gold is longer than {_MAX_RAW} characters")
    text = normalise(clean_gold(gold))
    if not text or not compact(text):
        raise ValueError(f"the gold {gold!r} has no content besides delimiters")
    if "\ufffd" in text:
        raise ValueError(f"the gold {gold[:80]!r} holds control characters or lone surrogates")
    if exact.whole_number(text) is not None:
        return
    reason = limits.shape(text)
    if reason:
        raise ValueError(f"the gold {gold[:80]!r} is over a grading limit: {reason}")


def _is_too_long(text: str) -> bool:
    return len(text) > (_MAX_DIGITS if text.lstrip("+-").isdecimal() else _MAX_RAW)


@lru_cache(maxsize=4096)
def is_sentence(gold: str) -> bool:
    """Whether a gold is prose, to which hardly any answer is equal: words are compared, not what they mean."""
    return len(_WORD.findall(_MATHEMATICS.sub(" ", clean_gold(gold[:_MAX_RAW])))) >= _SENTENCE


def clean_gold(gold: str) -> str:
    """The gold alone: the content of its box or adjacent boxes when it has any, else itself."""
    gold = gold.strip()
    found = boxes(gold) if "boxed" in gold or "fbox" in gold else []
    if len(found) > 1 and adjacent(gold, found):
        return ", ".join(content for _, _, content in found)
    return found[-1][2] if found else _OPEN_BOX.sub("", gold)


@dataclass(frozen=True)
class Case:
    """One gold and one answer, both as text that any pipe takes."""

    gold: str
    """Without its box."""
    answer: str
    same: bool
    """Whether both were the same text as they came."""
    policy: GradingPolicy

    @cached_property
    def left(self) -> str:
        """The gold, normalised."""
        return normalise(self.gold)

    @cached_property
    def right(self) -> str:
        """The answer, normalised."""
        return normalise(self.answer)

    @cached_property
    def readings(self) -> tuple[Reading, Reading]:
        """What gold and answer are."""
        return reading.read(self.left), reading.read(self.right)


def case_of(gold: str, answer: str, policy: GradingPolicy) -> Case:
    """The case of a gold and an answer as they came."""
    return Case(clean_gold(gold), printable(answer), gold.strip() == answer.strip(), policy)


def decide(gold: str, answer: str, policy: GradingPolicy) -> Verdict | None:
    """Judge an answer by every tier but the symbolic one; None when undecided. Never slow."""
    begun = time.perf_counter()
    case = case_of(gold, answer, policy)
    try:
        verdict = next((found for tier in TIERS.values() if (found := tier(case)) is not None), None)
    except (ArithmeticError, LookupError, RecursionError, ValueError) as error:  # of this pair alone: its batch goes on
        return failed("error", case.answer[:200], "limits", f"{type(error).__name__}: {error}"[:200])
    return None if verdict is None else dataclasses.replace(verdict, seconds=time.perf_counter() - begun)


def _size(case: Case) -> Verdict | None:
    """Nothing to compare, or too much of it; the same text is right whatever its size."""
    if not case.answer.strip():
        return failed("no_answer", None, "extraction", "the answer is empty")
    if case.gold and case.same:
        return decided(True, case.answer, "text", "the same text")
    if _is_too_long(case.gold) or not case.gold:
        return failed("error", case.answer[:200], "limits", "unusable gold: empty or too long")
    if _is_too_long(case.answer):
        if strip_delimiters(case.answer) == strip_delimiters(case.gold):
            return decided(True, case.answer, "text", "the same text")
        too_long = f"longer than {_MAX_RAW} characters ({len(case.answer)})"
        return failed("rejected", case.answer[:200], "limits", too_long)
    return None


def _choice(case: Case) -> Verdict | None:
    """A gold that is a letter is graded as a letter and as nothing else."""
    letter = choices.gold_letter(case.gold) if len(case.gold) < 300 else None
    if letter is None:
        return None
    return decided(choices.equal(letter, case.gold, case.answer), case.answer, "choice", f"the choice is {letter}")


def _text(case: Case) -> Verdict | None:
    """The same spelling, once both are normalised."""
    same = case.left == case.right or compact(case.left) == compact(case.right)
    if same or same_words(case.left, case.right):
        return decided(True, case.answer, "text", "the same text")
    return None if case.right else failed("no_answer", None, "extraction", "the answer is empty")


def _exact(case: Case) -> Verdict | None:
    """Whole numbers of any length as digits, and times of day."""
    whole = exact.equal_whole(case.left, case.right)
    if whole is not None:
        return decided(whole, case.answer, "exact", "whole numbers")
    clock = exact.equal_clock(case.left, case.right)
    return None if clock is None else decided(clock, case.answer, "exact", "times of day")


def _limits(case: Case) -> Verdict | None:
    """What would be dear to evaluate is refused before anything evaluates it."""
    reason = limits.check(case.right)
    if reason is None and not closed(case.right) and closed(case.left):
        reason = "braces that do not match"
    if reason:
        return failed("rejected", case.answer[:200], "limits", reason)
    unusable = limits.check(case.left) if exact.whole_number(case.left) is None else None
    return failed("error", case.answer[:200], "limits", f"unusable gold: {unusable}") if unusable else None


def _structure(case: Case) -> Verdict | None:
    """Part by part: values exactly or at random points, groups element by element."""
    try:
        with allowance(_WORK):
            equal = structure.equal(*case.readings, case.policy)
    except (ArithmeticError, RecursionError, ValueError):
        equal = None  # arithmetic beyond what was foreseen: the killable tier takes it
    if equal is None:
        if _HEDGE.search(case.right) and not _HEDGE.search(case.left):
            return decided(False, case.answer, "structure", "the answer hedges in words")
        return None
    return decided(equal, case.answer, _tier(*case.readings), "equal" if equal else "different")


def _admission(case: Case) -> Verdict | None:
    """What the symbolic tier would not read whole is different text; what would be dear is refused."""
    try:
        sides = symbolic_text(case.gold), symbolic_text(case.answer)
    except Undecided as doubt:
        return decided(False, case.answer, "admission", f"the texts differ, and one is not clear: {doubt}")
    for name, side in zip(("gold", "answer"), sides, strict=True):
        mark = admission.unread(side)
        if mark:
            return decided(False, case.answer, "admission", f"the {name} holds {mark}, which sympy would not read")
    reason = admission.dear(*sides)
    return failed("rejected", case.answer[:200], "admission", reason) if reason else None


TIERS: dict[str, Callable[[Case], Verdict | None]] = {
    "size": _size,
    "choice": _choice,
    "text": _text,
    "exact": _exact,
    "limits": _limits,
    "structure": _structure,
    "admission": _admission,
}
"""In the order in which they judge; each says nothing (None) unless it is sure."""


def symbolic_text(text: str) -> str:
    """What the symbolic tier is given: normalised, without units and names of what is asked, functions with brackets.

    Raises Undecided where the argument of a function has no clear end.
    """
    text = normalise(text)
    read = reading.read(text)
    if isinstance(read, Scalar):
        return with_brackets(read.text) + ("\\%" if read.percent else "")
    text = text.replace("\\mid", "|")
    exact_part = text.split("\\approx")[0].strip() or text
    return with_brackets(exact_part.replace("%", "\\%"))


def _tier(gold: Reading, answer: Reading) -> str:
    if not isinstance(gold, Scalar) or not isinstance(answer, Scalar):
        return "structure"
    try:
        exact.rational(parse(gold.text))
        exact.rational(parse(answer.text))
    except Undecided:
        return "numeric"
    return "exact"
