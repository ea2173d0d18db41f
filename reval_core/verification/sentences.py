"""The mathematics in plain prose: where a sentence ends, and which formulas, numbers and expressions it holds.

Every pattern is linear in the text, and begins with a literal character where it runs over a whole text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\n]{1,40}\|>|</?s>|<eos>|<end_of_turn>")
_MARKUP = re.compile(r"\*\*(?:(?![\w(])|(?<![\w)]\*\*))|`+|__(?:(?=[-\d$])|(?<=[\d$]__))")
_ROWS = re.compile(
    r"\\begin\{(align|aligned|gather|gathered|equation|eqnarray|split)\*?\}(.{1,2000}?)\\end\{\1\*?\}", re.DOTALL
)
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
_SIGNS = str.maketrans({"٫": ".", "٬": ",", "：": ":", "，": ",", "．": ".", "＄": "$", "＝": "="})
_TWO_POINTS = re.compile(r"\.\d{3}\.\d{3}")
_DOTTED = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{3}){2,}(?![\d.])")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[\d$-])")

_BREAK = re.compile(  # a formula or the end of a sentence; a dollar sign before a digit opens an amount of money
    r"\$\$[^$]{1,600}\$\$|\$[^$]{1,600}\$(?!\d)|\\\((?:[^\\]|\\[^)]){1,600}?\\\)|\\\[(?:[^\\]|\\[^\]]){1,600}?\\\]"
    r"|\\\\(?=\s|&)|\n|\.(?=\s|$|[\"'”’)])(?<!\bi\.e\.)(?<!\be\.g\.)|!(?=\s|$|[\"'”’)])|\?(?=\s|$|[\"'”’)])|。|；|।|？|؟"
)
_QUESTION_MARKS = ("?", "？", "؟")
_QUESTION_WORD = re.compile(r"[吗嗎呢か까]\s*$")
"""What makes a question of a sentence at its end, with or without a mark."""
_QUOTED = re.compile(r"^>[ \t]", re.MULTILINE)
_ASIDE = re.compile(r"\b(?:because|since|obtained)\b|,\s+(?:which|because|as|not)\b", re.IGNORECASE)
_SO = re.compile(r",\s+so\b")
_DELIMITERS = re.compile(r"^(?:\$\$?|\\[(\[])[\s=]*|\s*(?:\$\$?|\\[)\]])$")
_COMMAND = re.compile(r"\\(?:text|begin|end)\{[^{}]*\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"[^\W\d_]{4,}")
_PERCENT = re.compile(r"\s{0,2}(?:\\?%|percent\b|pct\b)", re.IGNORECASE)

_NUMBER = r"\d+(?:,\d+)*(?:\.\d+)?|\.\d+"
_LETTER = r"(?<![a-zA-ZÀ-ɏ])[a-zA-Z](?![a-zA-ZÀ-ɏ'’])(?!(?<=[aAI])\s[a-z])"
_FUNCTION = r"(?:arc)?(?:sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|inf|infinity|oo)(?![a-zA-Z])"
_ATOM = (
    rf"(?:{_NUMBER})(?:\s?(?:\\?%|percent\b|pct\b))?|\\(?:text|mathrm|operatorname|mbox|begin|end)\s?\{{[^{{}}]{{0,60}}\}}"
    rf"|\\[a-zA-Z]+|\\[{{}}|,;:!]|{_FUNCTION}|{_LETTER}|(?<![a-zA-Z])[A-Z]{{2,3}}(?=\s?=)"
    r"|[-+−–*/^_=<>≤≥≠≈±×÷·∪∩∞√π°²³|(){}\[\]]|(?<=\d):(?=\s?\d)|(?<=\d\s):(?=\s\d)"
    r"|!(?=\s?[-+*/^)=\\])|,(?=\s?(?:[-+−(\[{\\\d√]|[a-zA-Z]\s?=))|\$(?=\d)"
)
_SPAN = re.compile(rf"(?<![a-zA-Z0-9_.#À-ɏ])(?:{_ATOM})(?:[ \t]?(?:{_ATOM}))*")
_DANGLING = re.compile(r"(?:[\s,:=)*/^_|}\]]|(?<=[=-])>)*(?:(?:[a-zA-Z]\s)+(?=[\d\\]))?")
_CONTENT = re.compile(r"\d|[∞π√]|\\[a-zA-Z]|\b(?:pi|inf|oo)\b")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b|-(?:th|digit|sided)\b")
_UNIT = re.compile(rf"({_NUMBER})\s?((?:[kcmd]?m|s|k?g|L|J|N|W|V|A|K|C|h)[²³]?(?:/(?:s|h|m)[²³]?)?|\\AA)")
_ROUGHLY = re.compile(r"\s*(?:≈|\\approx(?![a-zA-Z]))\s*")
_NAME = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w{1,8}\}?|'|\([a-z, ]{1,8}\))*")
_SUM = re.compile(r"[\d)]\s*[-+*/×÷−]\s*[\d(].*=")
_IN_BRACKETS = re.compile(rf"\[\s*(-?(?:{_NUMBER}))\s*\]")
_SIMPLE = re.compile(
    r"(?:(?P<number>-?\d{1,30}(?:,\d{3}){0,9}(?:\.\d{1,20})?)(?:/(?P<under>\d{1,20}))?"
    r"|\\[dt]?frac\{(?P<over>-?\d{1,20})\}\{(?P<below>\d{1,20})\})(?P<percent>\s?(?:\\?%|percent|pct))?"
)


@dataclass(frozen=True, slots=True)
class Value:
    """A formula or a stretch of plain mathematics: where it stands and what it says."""

    start: int
    end: int
    text: str


def clean(text: str) -> str:
    """Without special tokens and bold marks; digits of every script as ASCII; of an aligned formula the last row."""
    text = _QUOTED.sub("", _SPECIAL_TOKEN.sub("", text))
    if not text.isascii():
        text = _OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), text.translate(_SIGNS))
    if _TWO_POINTS.search(text):
        text = _DOTTED.sub(lambda number: number.group().replace(".", ""), text)
    if "\\end{" in text:
        text = _ROWS.sub(lambda rows: rows[2].rstrip(" \\\n").rpartition("\\\\")[2].replace("&", " "), text)
    return _BARE_BOX.sub("", _MARKUP.sub("", text)).strip()


def first_sentence(text: str) -> str:
    """Up to the end of the first sentence or its first aside (because, which, not), quotes around it dropped."""
    text = text.lstrip(" \t\r\n*:_\"“'‘")
    for token in _BREAK.finditer(text):
        if token.start() > 0 and not _is_formula(token):
            text = text[: token.start()]
            break
    for pattern in (_ASIDE, _SO):
        aside = pattern.search(text, 1)
        text = text[: aside.start()] if aside else text
    return text.strip(" *\"”'’")


def whole_sentence(text: str) -> tuple[str, bool]:
    """The first sentence with all of its asides, and whether it is a question."""
    for token in _BREAK.finditer(text):
        if token.start() > 0 and not _is_formula(token):
            sentence = text[: token.start()]
            return sentence, _ends_a_question(sentence, token)
    return text, _ends_a_question(text, None)


def _ends_a_question(sentence: str, token: re.Match[str] | None) -> bool:
    return (token is not None and token.group() in _QUESTION_MARKS) or _QUESTION_WORD.search(sentence[-20:]) is not None


def sentences_from_the_end(text: str) -> Iterator[str]:
    """The sentences that state something, last first, each without the aside it ends with; no questions."""
    stop, closing = len(text), None
    for token in [*reversed([token for token in _BREAK.finditer(text) if not _is_formula(token)]), None]:
        start = token.end() if token else 0
        sentence = text[start:stop]
        if not _ends_a_question(sentence, closing):
            aside = _ASIDE.search(sentence, 1)
            yield sentence[: aside.start()] if aside and values(sentence[: aside.start()]) else sentence
        stop, closing = token.start() if token else 0, token


def values(sentence: str) -> list[Value]:
    """The formulas of a sentence; without any, its stretches of plain mathematics."""
    formulas = [
        Value(token.start(), token.end(), _body(token, sentence))
        for token in _BREAK.finditer(sentence)
        if _is_formula(token) and not is_prose(token.group())
    ]
    return formulas or plain_values(sentence, 0)


def plain_values(sentence: str, at: int) -> list[Value]:
    """The stretches of plain mathematics behind a position."""
    return [value for span in _SPAN.finditer(sentence, at) if (value := _plain(span, sentence)) is not None]


def words(text: str, least: int) -> bool:
    """Whether the text holds a word of at least this many letters, commands aside."""
    return re.search(rf"[^\W\d_]{{{least},}}", _COMMAND.sub("", text)) is not None


def is_prose(formula: str) -> bool:
    """Whether what stands between two dollar signs is a sentence about money, not a formula."""
    return len(_PROSE.findall(_COMMAND.sub("", formula))) > 1


def same(left: str, right: str) -> bool:
    """Whether two plain numbers are one: 3/4, 0.75 and 75%."""
    number = _number(left)
    return number is not None and number == _number(right)


def _is_formula(token: re.Match[str]) -> bool:
    return token.group()[0] == "$" or token.group()[:2] in ("\\(", "\\[")


def _body(token: re.Match[str], text: str) -> str:
    body = _DELIMITERS.sub("", token.group()).strip()
    return body + "\\%" if _PERCENT.match(text, token.end()) else _end_of_chain(body)


def _plain(span: re.Match[str], text: str) -> Value | None:
    """The span without what dangles at its ends; None when it has no content, or counts: 12th."""
    body = span.group().rstrip(" ,:=(*/^_-+−–[{<>|\\")
    dangling = _DANGLING.match(body)
    start = span.start() + (dangling.end() if dangling else 0)
    body = text[start : span.start() + len(body)]
    if body.count("(") + body.count("[") != body.count(")") + body.count("]"):
        body = body.strip("()[] ")
        start = text.index(body, start) if body else start
    end = start + len(body)
    if not body or not _CONTENT.search(body) or _ORDINAL.match(text, end):
        return None
    about = _ROUGHLY.split(body)
    if len(about) > 1:
        body = next((side for side in about if any(char.isdigit() for char in side)), body)
    if unit := _UNIT.fullmatch(body):
        body = unit[1] if body[-1] in "²³" else rf"{unit[1]}\text{{ {unit[2]}}}"
    elif alone := _IN_BRACKETS.fullmatch(body):
        body = alone[1]
    elif _SUM.match(body):
        body = body.rpartition("=")[2].strip() or body
    return Value(start, end, _end_of_chain(body))


def _end_of_chain(formula: str) -> str:
    """Of a derivation x = 3 + 4 = 7 what it ends in, x = 7; everything else as it is."""
    if formula.count("=") < 2:
        return formula
    sides = [side.strip(" &") for side in _top_level_sides(_ROUGHLY.split(formula)[0])]
    names = [_NAME.fullmatch(side) is not None for side in sides]
    if len(sides) < 3 or not all(sides) or all(names[1:-1]) or not _CONTENT.search(sides[-1]):
        return formula
    return f"{sides[0]} = {sides[-1]}" if names[0] else sides[-1]


def _top_level_sides(formula: str) -> list[str]:
    """The sides of a chain of equations, split outside brackets; none when commas or other relations part it too."""
    sides, depth, start = [], 0, 0
    for at, char in enumerate(formula):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in ",;<>≤≥≠\n":
            return []
        if depth == 0 and char == "=":
            sides.append(formula[start:at])
            start = at + 1
    if re.search(r"\\(?:ne|neq|le|leq|ge|geq|lt|gt|equiv|quad|text|begin)(?![a-zA-Z])", formula):
        return []
    return [*sides, formula[start:]]


def _number(text: str) -> Fraction | None:
    match = _SIMPLE.fullmatch(text)
    if match is None:
        return None
    divisor = int(match["below"] or match["under"] or 1)
    value = Fraction((match["over"] or match["number"]).replace(",", ""))
    return value / divisor / (100 if match["percent"] else 1) if divisor else None
