"""Reading answers with parts: lists, tuples, intervals, sets, unions, matrices, equations, words.

`read` turns text into a Reading, a small tree. Text that is none of these becomes Opaque.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from reval_core.verification import units
from reval_core.verification.normalise import compact, normalise, words_of
from reval_core.verification.parser import Undecided, parse, symbols


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; `percent` when it was followed by %, `unit` the text after it ("" for none)."""

    text: str
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Parts in order. kind: list (no brackets), set, union, matrix, ratio, or the two brackets."""

    kind: str
    items: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """Sides joined by =; `label` is the first side when that only names what follows, else ""."""

    label: str
    sides: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, in lower case; `marked` when it was in \\text{} or is plain prose."""

    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """Text that this module does not read."""

    text: str


Reading = Scalar | Group | Equation | Words | Opaque

_NAME = (
    r"(?:\\(?!(?:frac|sqrt|pi|sin|cos|tan|log|ln|pm|infty|lfloor|lceil|binom)\b)[a-zA-Z]+ ?)?[A-Za-z]*'*"
    r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?(?:\([A-Za-z0-9,]{0,20}\))?"
)
_LABEL = re.compile(rf"\(?(?!\d){_NAME}(?:[,:]{_NAME}){{0,8}}\)?")
_TEXT_LABEL = re.compile(r"\\text\{[^{}]*\}|[A-Za-z ]{1,60}")
_WORDS = re.compile(r"(?:\\text\{[^{}\\$]*\}|[A-Za-z '\-.,()])+")
_CONNECTIVE = re.compile(
    r"\\text\{\s*(?:,?\s*(?:and|or)|,|;)\s*\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z])|\\(?:vee|wedge|lor|land)(?![a-zA-Z])"
)
_ENVIRONMENT = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_INEQUALITY = re.compile(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>")
_UNREAD = ("\\ldots", "...", "\\ne ", "\\mod", "\\equiv", "\\Rightarrow", "\\to", "\\mid")


@lru_cache(maxsize=16384)
def read(text: str) -> Reading:
    """The reading of a gold or an answer (any spelling; it is normalised here)."""
    return _read(normalise(text), 0)


def split_top(text: str, separators: str) -> list[str]:
    """`text` cut at each of the single-character separators that stands outside all brackets."""
    parts: list[str] = []
    depth = start = 0
    previous = ""
    for index, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in separators and depth == 0 and previous != "\\":
            parts.append(text[start:index].strip())
            start = index + 1
        previous = char
    parts.append(text[start:].strip())
    return parts


def _read(text: str, depth: int) -> Reading:
    if not text or depth > 6:
        return Opaque(text)
    if text[0] == "{" and text[-1] == "}" and _one_group(text) and "\\cup" in text:
        return _read(text[1:-1].strip(), depth + 1)
    exact_part, approximately, rest = (part.strip() for part in text.partition("\\approx"))
    if exact_part and approximately:
        return _read(rest if is_label(exact_part) else exact_part.removesuffix("\\text{ or }").strip(), depth + 1)
    words = _read_words(text)
    if words is not None:
        return words
    if any(mark in text for mark in _UNREAD):
        return Opaque(text)
    if "or" in text or "and" in text or "\\text{" in text or "\\vee" in text:
        joined = _CONNECTIVE.sub(",", text)
        if joined != text:
            text = re.sub(r"\s*,(?:\s*,)+\s*", ", ", joined).strip(" ,")
    if not text:
        return Opaque(text)
    if "\\cup" in text:
        parts = text.split("\\cup")
        return Group("union", tuple(_read(part.strip(), depth + 1) for part in parts))
    items = [part for part in split_top(text, ";") if part]
    if len(items) == 1:
        items = [part for part in split_top(text, ",") if part]
    if len(items) > 1:
        return _read_list(text, items, depth)
    return _read_relation(text, depth) or _read_brackets(text, depth) or _read_scalar(text)


def _read_list(text: str, items: list[str], depth: int) -> Reading:
    """Parts separated by commas; `n = 1, 2, 3` is a named list, not an equation and two numbers."""
    sides = split_top(items[0], "=")
    if len(sides) == 2 and is_label(sides[0]) and not any("=" in item for item in items[1:]):
        whole = _read(", ".join([sides[1], *items[1:]]), depth + 1)
        return Equation(compact(sides[0]), (whole,))
    readings = tuple(_read(item, depth + 1) for item in items)
    if any(isinstance(reading, Group) and reading.kind == "plusminus" for reading in readings):
        readings = tuple(
            part
            for reading in readings
            for part in (reading.items if isinstance(reading, Group) and reading.kind == "plusminus" else (reading,))
        )
    return Group("list", readings)


def _read_relation(text: str, depth: int) -> Reading | None:
    if "\\in " in text:
        name, _, rest = text.partition("\\in ")
        return _read(rest.strip(), depth + 1) if is_label(name.strip()) else Opaque(text)
    if _INEQUALITY.search(text):
        return _read_inequality(text) or Opaque(text)
    sides = split_top(text, "=")
    if len(sides) == 1:
        return None
    if not all(sides):
        return Opaque(text)
    if len(sides) == 2 and is_label(sides[1]) and not is_label(sides[0]):
        sides.reverse()
    label = ""
    if is_label(sides[0]) or (_TEXT_LABEL.fullmatch(sides[0]) and len(sides[0]) > 2):
        label, sides = compact(sides[0]), sides[1:]
        while len(sides) > 1 and is_label(sides[0]):
            sides = sides[1:]
    return Equation(label, tuple(_read(side, depth + 1) for side in sides))


def _read_inequality(text: str) -> Reading | None:
    """a < x <= b, x > a and a > x as the interval that they describe."""
    signs = [match.group().strip() for match in _INEQUALITY.finditer(text)]
    sides = [side.strip() for side in _INEQUALITY.split(text)]
    named = [is_label(side) for side in sides]
    if len(sides) == 2 and named[0] != named[1]:
        value, sign = (sides[1], signs[0]) if named[0] else (sides[0], _flip(signs[0]))
        end = _read_scalar(value)
        if not isinstance(end, Scalar) or has_symbols(end):
            return None
        if sign in ("<", "\\le"):
            return Group("(" + (")" if sign == "<" else "]"), (Scalar("-\\infty"), end))
        return Group(("(" if sign == ">" else "[") + ")", (end, Scalar("\\infty")))
    if len(sides) == 3 and named == [False, True, False]:
        ends = [_read_scalar(sides[0]), _read_scalar(sides[2])]
        if signs[0] in (">", "\\ge"):
            ends.reverse()
            signs = [_flip(signs[1]), _flip(signs[0])]
        if signs[1] in (">", "\\ge") or not all(isinstance(e, Scalar) for e in ends):
            return None
        kind = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
        return Group(kind, tuple(ends))
    return None


def _flip(sign: str) -> str:
    return {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]


def _read_brackets(text: str, depth: int) -> Reading | None:
    environment = _ENVIRONMENT.fullmatch(text)
    if environment:
        if environment[1] == "vmatrix":
            return Opaque(text)
        rows = [row for row in environment[2].split("\\\\") if row.strip()]
        cells = tuple(Group("row", tuple(_read(cell.strip(), depth + 1) for cell in row.split("&"))) for row in rows)
        return Group("matrix", cells)
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2].strip()
        parts = [part for part in split_top(inner, ",;") if part]
        readings = [_read(part, depth + 1) for part in parts]
        return Group("set", tuple(_spread(readings)))
    if text[0] in "([{" and text[-1] in ")]}" and _one_group(text):
        inner = text[1:-1].strip()
        parts = split_top(inner, ",;")
        if len(parts) == 1:
            if text[0] + text[-1] in ("()", "{}"):
                return _read(inner, depth + 1)
            return Group("singleton", (_read(inner, depth + 1),))
        if text[0] == "{":
            return Group("list", tuple(_read(part, depth + 1) for part in parts if part))
        if not all(parts):
            return Group("singleton", (Opaque(inner),))
        return Group(text[0] + text[-1], tuple(_read(part, depth + 1) for part in parts))
    if text[0] == "-" and text[-1] in ")]}":
        return _read_negated(text, depth)
    ratio = split_top(text, ":")
    if len(ratio) > 1 and all(ratio):
        return Group("ratio", tuple(_read_scalar(part) for part in ratio))
    return None


def _read_negated(text: str, depth: int) -> Reading | None:
    """-(a, b) and -M: the sign goes to every part. Opaque for what cannot take one; None for a scalar."""
    group = _read_brackets(text[1:].strip(), depth + 1) if len(text) > 2 else None
    if not isinstance(group, Group):
        return None
    if group.kind not in ("()", "set", "matrix"):
        return Opaque(text)
    return _negated(group) or Opaque(text)


def _negated(group: Group) -> Group | None:
    items: list[Reading] = []
    for item in group.items:
        opposite: Reading | None = None
        if isinstance(item, Scalar):
            opposite = Scalar(f"-({item.text})", item.percent, item.unit)
        elif isinstance(item, Group) and item.kind == "row":
            opposite = _negated(item)
        if opposite is None:
            return None
        items.append(opposite)
    return Group(group.kind, tuple(items))


def _spread(readings: list[Reading]) -> list[Reading]:
    spread: list[Reading] = []
    for reading in readings:
        plus_minus = isinstance(reading, Group) and reading.kind == "plusminus"
        spread.extend(reading.items if plus_minus and isinstance(reading, Group) else (reading,))
    return spread


def _one_group(text: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


def _read_scalar(text: str) -> Reading:
    if text.count("\\pm") == 1:
        before, _, after = text.partition("\\pm")
        both = tuple(_read_scalar(f"{before}{sign}{after}".strip()) for sign in "+-")
        return Group("plusminus", both)
    if text == "\\emptyset":
        return Group("set", ())
    value, unit = units.split(text)
    percent = value.endswith("%")
    value = value.rstrip("% ").strip()
    if not value or "\\text" in value or "\\pm" in value:
        return Opaque(text)
    return Scalar(value, percent, unit)


def _read_words(text: str) -> Words | None:
    if text[0] == "-" or not _WORDS.fullmatch(text):
        return None
    plain = words_of(text)
    letters = sum(char.isalpha() for char in plain)
    if letters < 2 or (letters < 3 and "\\text" not in text) or plain in ("and", "or"):
        return None
    if "\\text" not in text and " " not in plain and parses(text):
        return None
    outside = re.sub(r"\\text\{[^{}]*\}", "", text)
    if outside != text and any(char.isalpha() for char in outside) and " " not in plain:
        return None  # letters beside the text: a name and its unit, not words
    return Words(plain)


def is_label(text: str) -> bool:
    """Whether text only names what an equation gives: x, f(x), S_{ABC}, (p,q,r)."""
    return (
        0 < len(text) <= 60
        and text not in ("e", "i", "\\pi", "\\infty", "\\emptyset")
        and any(char.isalpha() for char in text)
        and _LABEL.fullmatch(text.replace(", ", ",")) is not None
    )


def parses(text: str) -> bool:
    """Whether text is a scalar expression of the strict grammar."""
    try:
        parse(text)
    except Undecided:
        return False
    return True


def has_symbols(scalar: Scalar) -> bool:
    """Whether the value depends on a variable, or cannot be read."""
    try:
        return bool(symbols(parse(scalar.text)))
    except Undecided:
        return True
