"""The order in which an answer is judged, as far as that can be done safely in this process."""

from __future__ import annotations

import re
import time
from functools import lru_cache

from reval_core.verification import choices, exact, limits, reading, structure
from reval_core.verification.extraction import adjacent, boxes
from reval_core.verification.normalise import compact, normalise, printable, strip_delimiters
from reval_core.verification.parser import Undecided, parse
from reval_core.verification.verdict import GradingPolicy, Verdict, decided, failed

_MAX_RAW = 20_000
_HEDGE = re.compile(
    r"\\text ?\{(?! ?,? ?(?:or|and) ?\})[^{}]*(?:\d|\b(?:or|not|maybe|perhaps|either)\b)[^{}]*\}", re.IGNORECASE
)
"""Words or numbers inside \\text{}, beyond a plain `or`: math-verify would drop them and see one value."""


def check_gold(gold: str) -> None:
    """Refuse a gold that no answer could ever be graded against.

    Raises ValueError that says why: empty, too large as text, or without any content. A gold whose value is over a
    limit (a binomial of millions) stays: an answer of the same text is right.
    """
    if not isinstance(gold, str):
        raise ValueError(f"the gold must be text, got {type(gold).__name__}")
    if not gold.strip():
        raise ValueError("the gold is empty")
    if len(gold) > _MAX_RAW:
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


@lru_cache(maxsize=4096)
def clean_gold(gold: str) -> str:
    """The gold alone: the content of its box or adjacent boxes when it has any, else itself."""
    gold = gold.strip()
    found = boxes(gold) if "boxed" in gold or "fbox" in gold else []
    if len(found) > 1 and adjacent(gold, found):
        return ", ".join(content for _, _, content in found)
    return found[-1][2] if found else gold


def decide(gold: str, answer: str, policy: GradingPolicy) -> Verdict | None:
    """Judge an answer by every tier but the symbolic one; None when undecided. Never slow."""
    begun = time.perf_counter()

    def verdict(equal: bool, tier: str, details: str) -> Verdict:
        return decided(equal, answer, tier, details, time.perf_counter() - begun)

    same = gold.strip() == answer.strip()
    gold = clean_gold(gold)
    answer = printable(answer)
    if not answer.strip():
        return failed("no_answer", None, "extraction", "the answer is empty")
    if gold and same:
        return verdict(True, "text", "the same text")
    if len(gold) > _MAX_RAW or not gold:
        return failed("error", answer[:200], "limits", "unusable gold: empty or too long")
    if len(answer) > _MAX_RAW:
        if strip_delimiters(answer) == strip_delimiters(gold):
            return verdict(True, "text", "the same text")
        too_long = f"longer than {_MAX_RAW} characters ({len(answer)})"
        return failed("rejected", answer[:200], "limits", too_long)
    letter = choices.gold_letter(gold) if len(gold) < 300 else None
    if letter is not None:
        return verdict(choices.equal(letter, gold, answer), "choice", f"the choice is {letter}")
    left, right = normalise(gold), normalise(answer)
    if left == right or compact(left) == compact(right):
        return verdict(True, "text", "the same text")
    if not right:
        return failed("no_answer", None, "extraction", "the answer is empty")
    whole = exact.equal_whole(left, right)
    if whole is not None:
        return verdict(whole, "exact", "whole numbers")
    clock = exact.equal_clock(left, right)
    if clock is not None:
        return verdict(clock, "exact", "times of day")
    reason = limits.check(right)
    if reason:
        return failed("rejected", answer[:200], "limits", reason)
    unusable = limits.check(left) if exact.whole_number(left) is None else None
    if unusable:
        return failed("error", answer[:200], "limits", f"unusable gold: {unusable}")
    readings = reading.read(left), reading.read(right)
    try:
        equal = structure.equal(*readings, policy)
    except (ArithmeticError, RecursionError, ValueError):
        equal = None  # arithmetic beyond what was foreseen: the killable tier takes it
    if equal is None and _HEDGE.search(right) and not _HEDGE.search(left):
        return verdict(False, "structure", "the answer hedges in words")
    if equal is None:
        return None
    tier = _tier(*readings)
    return verdict(equal, tier, "equal" if equal else "different")


def symbolic_text(text: str) -> str:
    """What the symbolic tier is given: normalised, without units and names of what is asked."""
    text = normalise(text)
    read = reading.read(text)
    if isinstance(read, reading.Scalar):
        return read.text + ("\\%" if read.percent else "")
    exact_part = text.split("\\approx")[0].strip() or text
    return exact_part.replace("%", "\\%")


def _tier(gold: reading.Reading, answer: reading.Reading) -> str:
    if not isinstance(gold, reading.Scalar) or not isinstance(answer, reading.Scalar):
        return "structure"
    try:
        exact.rational(parse(gold.text))
        exact.rational(parse(answer.text))
    except Undecided:
        return "numeric"
    return "exact"
