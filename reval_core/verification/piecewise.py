"""Values given case by case: rows of a value and of where it holds, in any order and spelling.

A row is the same when its value is and its condition is: the same text, or the same relation in one variable. Rows
that say the same by other cases (`otherwise` for what is left) are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from reval_core.verification.normalise import compact
from reval_core.verification.readings import Equation, Group, Opaque, Reading
from reval_core.verification.relations import is_label
from reval_core.verification.verdict import conjunction

KIND = "cases"
_ENVIRONMENT = re.compile(
    r"(?:(?:\\\{)?\s?\\begin\{(?P<name>[dr]?cases)\}|\\\{\s?\\begin\{(?P<array>array)\}\s?(?:\{[lcr| ]*\})?)"
    r"(?P<rows>(?:(?!\\(?:begin|end)\{).)*)\\end\{(?:[dr]?cases|array)\}\s?[.,]?",
    re.DOTALL,
)
_ROW = re.compile(r"\\\\(?:\*)?\s?(?:\[[\d.]+\s?(?:pt|ex|em|mm|cm)\])?|\\cr(?![a-zA-Z])")
_INTRODUCED = re.compile(r"\\text\s?\{\s?,?\s?(?:if|for|when|where|otherwise|else)\b", re.IGNORECASE)
_INTRODUCTION = re.compile(r"^[\s,(]*(?:if|for|when|where)\s+", re.IGNORECASE)
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_RELATION_FIRST = re.compile(r"[=<>]|\\(?:le|ge|ne|approx|equiv)(?![a-zA-Z])|$")


def read(text: str, read_part: Callable[[str], Reading]) -> Reading | None:
    """The rows of a normalised `\\begin{cases}`, named where `f(x) =` stands before it; None for any other text."""
    if "\\end{" not in text:
        return None
    before, brace, rest = text.partition("\\begin{")
    opened = before.rstrip().endswith("\\{")
    name = before.rstrip().removesuffix("\\{").rstrip() if opened else before.rstrip()
    environment = _ENVIRONMENT.fullmatch(("\\{" if opened else "") + brace + rest)
    if environment is None or (name and not (name.endswith("=") and is_label(name[:-1].strip()))):
        return None
    rows = [_row(row, read_part) for row in _ROW.split(environment["rows"]) if row.strip(" .,;")]
    found = [row for row in rows if row is not None]
    if not found or len(found) < len(rows):
        return None
    group = Group(KIND, tuple(found))
    return Equation(compact(name[:-1]), (group,)) if name else group


def _row(text: str, read_part: Callable[[str], Reading]) -> Group | None:
    """A row as its value, its condition as text and as it reads; None for a row of a system or matrix."""
    value, sign, condition = text.partition("&")
    if not sign:
        introduced = _INTRODUCED.search(text)
        value, condition = (text[: introduced.start()], text[introduced.start() :]) if introduced else (text, "")
    value, condition = value.strip(" ,;"), condition.strip(" ,;.")
    if not value or "&" in condition or _RELATION_FIRST.match(condition):
        return None
    plain = _INTRODUCTION.sub("", _TEXT.sub(r" \1 ", condition)).strip(" ,;.()" if condition[0] == "(" else " ,;.")
    plain = plain.casefold() if plain.casefold() in ("otherwise", "else") else plain
    return Group("row", (read_part(value), Opaque(compact(plain)), read_part(plain)))


def equal(gold: Group, answer: Group, compare: Callable[[Reading, Reading], bool | None]) -> bool | None:
    """Whether two groups of cases have the same rows, each with its own condition; None when a value is undecided."""
    if len(gold.items) != len(answer.items):
        return False
    left = [row for row in gold.items if isinstance(row, Group)]
    free = [row for row in answer.items if isinstance(row, Group)]
    verdicts: list[bool | None] = []
    for row in left:
        partner = next((other for other in free if _same_condition(row, other, compare)), None)
        if partner is None:
            return False
        free.remove(partner)
        verdicts.append(compare(row.items[0], partner.items[0]))
    return conjunction(verdicts)


def _same_condition(gold: Group, answer: Group, compare: Callable[[Reading, Reading], bool | None]) -> bool:
    if gold.items[1] == answer.items[1]:
        return True
    left, right = gold.items[2], answer.items[2]
    if not isinstance(left, Equation) or not isinstance(right, Equation) or not left.label:
        return False
    return left.label == right.label and compare(left, right) is True
