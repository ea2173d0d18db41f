"""Multiple choice: a gold that is one letter A to J is graded as a letter and as nothing else.

An answer that names several letters is wrong: listing the options is no choice.
"""

from __future__ import annotations

import re

from reval_core.verification.normalise import normalise

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_GOLD = re.compile(r"\(?([A-J])\)?[.:]?")
_GOLD_WITH_TEXT = re.compile(r"\(([A-J])\)\s*(\S.{0,200})", re.DOTALL)
_ANSWER = re.compile(r"[(\[]?([A-J])[)\]]?(?:[.:)]?|\s*[.:)]\s*.{1,300}|(?<=[)\]])\s+.{1,300})", re.DOTALL)
_LETTER = re.compile(r"(?<![A-Za-z\\])([A-J])(?![A-Za-z'’])")
_PHRASE = re.compile(
    r"(?:answer|choice|option|choose|select|pick|réponse|答案|think\s+it)(?:'s|\s+for\s+sure|\s+surely)?"
    r"\**\s{0,3}(?:is|are|would\s+be|est|为|是|[:：=])?[ \t*:]{0,4}(?:for\s+sure\s+|option\s+|choice\s+)?"
    r"[*(\[$]{0,4}(?:\\(?:text|boxed|textbf|mathrm)\{)?\(?([A-J])(?![A-Za-z'’])"
)
_LEADING = re.compile(r"\s*\(?([A-J])[).:](?:\s|$)")


def gold_letter(gold: str) -> str | None:
    """The letter of a multiple-choice gold: `B`, `(B)`, `\\text{(B)}`, `(B) some text`; else None."""
    text = plain(gold)
    match = _GOLD.fullmatch(text) or _GOLD_WITH_TEXT.fullmatch(text)
    return match[1] if match else None


def answer_letter(answer: str) -> str | None:
    """The one letter that an answer names, or None when it names none or several."""
    text = plain(answer)
    if "=" in text and len(text) < 20:
        text = text.rpartition("=")[2].strip()
    match = _ANSWER.fullmatch(text)
    if match is None:
        return None
    return match[1] if set(_LETTER.findall(text[match.end(1) :])) <= {match[1], "I"} else None


def equal(letter: str, gold: str, answer: str) -> bool:
    """Whether the answer chooses the gold's letter, or repeats the text that the gold gives with it."""
    chosen = answer_letter(answer)
    if chosen is not None:
        return chosen == letter
    with_text = _GOLD_WITH_TEXT.fullmatch(plain(gold))
    return bool(with_text) and plain(answer).casefold() in (
        with_text[2].strip().casefold() if with_text else "",
        plain(gold).casefold(),
    )


def extract_letter(text: str) -> str | None:
    """The letter that a completion without a box states, or None (used in lenient extraction)."""
    stated = _PHRASE.findall(text)
    if stated:
        return str(stated[-1])
    leading = _LEADING.match(text)
    if leading:
        return leading[1]
    letters = set(_LETTER.findall(text[-200:]))
    return letters.pop() if len(letters) == 1 else None


def plain(text: str) -> str:
    """Normalised text with \\text{} and braces removed."""
    return " ".join(_TEXT.sub(r" \1 ", normalise(text)).replace("{", "").replace("}", "").split())
