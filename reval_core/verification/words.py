"""Answers in words, and lists of names such as `B and C`."""

from __future__ import annotations

import re

from reval_core.verification import alternatives, relations
from reval_core.verification.normalise import words_of
from reval_core.verification.readings import Group, Reading, Words
from reval_core.verification.scalars import parses

_WORDS = re.compile(r"(?:\\text\{[^{}\\$]*\}|[A-Za-z '\-.,!?:;\"()])+")
OR = re.compile(r"(?<![\\a-zA-Z])(?:or|OR)(?![a-zA-Z])|(?<=\d)or(?=[a-z\d])|\\(?:vee|lor)(?![a-zA-Z])|或")
_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) |the (?:equation|system) has )?no (?:real |integer )?solutions?(?: exists?)?"
)
_TEXTS = re.compile(r"\\text\{([^{}]*)\}")
_BETWEEN_LETTERS = re.compile(
    r"\s?,\s?(?:and|or|AND|OR)\s|\s?,\s?|\s?\\?&\s?|\s+(?:and|or|AND|OR)\s+|\s?\\(?:vee|wedge|lor|land)(?![a-zA-Z])|[和或]"
)
_LETTERED = re.compile(r"[A-Z]|[IVX]{1,5}")
_NOTHING = frozenset({"none", "empty set", "the empty set", "no such numbers"})


def read_letters(text: str) -> Reading | None:
    """`B and C`, `I, II` as a list of names, `I or II` as alternatives."""
    plain = _TEXTS.sub(r" \1 ", text).strip(" .()").replace("(", "").replace(")", "")
    found = [item.strip() for item in _BETWEEN_LETTERS.split(plain)]
    if len(found) < 2 or not all(_LETTERED.fullmatch(item) for item in found):
        return None
    kind = alternatives.EITHER if OR.search(plain) else "list"
    return Group(kind, tuple(Words(item) for item in found))


def read_words(text: str) -> Reading | None:
    """Words, or what they name: a set of numbers, nothing at all. None for what is no words."""
    if text[0] == "-" or not _WORDS.fullmatch(text):
        return None
    said = words_of(text)
    if said in _NOTHING or _NO_SOLUTION.fullmatch(said):
        return Group("set", ())
    named = relations.number_set(said)
    if named is not None:
        return named
    letters = sum(char.isalpha() for char in said)
    if letters < 2 or (letters < 3 and "\\text" not in text) or said in ("and", "or"):
        return None
    if "\\text" not in text and " " not in said and parses(text):
        return None
    outside = re.sub(r"\\text\{[^{}]*\}", "", text)
    if outside != text and any(char.isalpha() for char in outside) and " " not in said:
        return None  # letters beside the text: a name and its unit, not words
    if re.fullmatch(r"\(?[A-Za-z](?:\s?[,:;]\s?[A-Za-z])+\)?", said) or re.search(r"(?<![a-z])[a-z]\s?[=(]", said):
        return None
    return Words(said)
