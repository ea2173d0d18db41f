"""Sets and relations in one variable: names, inequalities, set-builders, and what follows of joining them.

x < 1 or x > 5        the union of two intervals, named x
\\{x \\mid 2 < x < 5\\}    an interval
\\mathbb{R} \\setminus \\{3\\}, x \\ne 3, all real numbers except 3        a union of two
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from reval_core.verification import exact, numeric, spans
from reval_core.verification.normalise import compact
from reval_core.verification.parser import parse
from reval_core.verification.readings import Equation, Group, Opaque, Reading, Scalar
from reval_core.verification.tree import Undecided, symbols

Read = Callable[[str], Reading]
INEQUALITY = re.compile(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>")
NOT_EQUAL = re.compile(r"\\ne(?![a-zA-Z])")
BRACKETS = frozenset({"()", "[]", "(]", "[)"})

_GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi"
    "|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell"
)
_MARKED = r"(?:angle|triangle|overline|vec|hat|bar|widehat|measuredangle|overrightarrow|tilde)"
_NAME = (
    rf"(?:\\{_MARKED} ?(?:\{{[A-Za-z\\]+\}}|[A-Za-z]+)|\\(?:{_GREEK}) ?|[A-Za-z]+)"
    r"'*(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*(?:(?<=[A-Zfgh])\^\{?-1\}?|\^\{?-1\}?(?=\())?"  # of a matrix or function
    r"(?:\((?!\d+[+\-*/^])[A-Za-z0-9,]{0,20}\))?"
)
_SOLVED = re.compile(r"(?:ln|lg|log|exp|sqrt|[a-z][fgh])\(")  # what is done to an unknown: ln(x), xf(x)
_LABEL = re.compile(rf"\(?{_NAME}(?:[,:]{_NAME}){{0,8}}\)?|[\\|]?\|{_NAME}\|")
_VARIABLE = re.compile(rf"(?:\\(?:{_GREEK})|[A-Za-z])'*(?:_(?:\{{[^{{}}]*\}}|[A-Za-z0-9]))?(?:\([a-z]\))?")
_BUILDER = re.compile(r"\\\{\s?(?P<name>[^|:]{1,30}?)\s?(?:\\mid|\||:)\s?(?P<condition>.+)\\\}")
_EVERY = re.compile(
    r"^(?:\\text\{\s?)?(?:for )?(?:all|any|every)(?: real)?\s?\}?\s(?=[a-z]\b)|^[a-z]\s?\\in\s?\\mathbb\{R\}\s?,\s?"
)
_ELEMENT = re.compile(r"\\in(?![a-zA-Z])")
_JOINT = re.compile(
    r"\\text\{\s*,?\s*(?P<a>and|or)\s*\}|(?<![\\a-zA-Z])(?P<b>and|or)(?![a-zA-Z])"
    r"|\\(?P<c>vee|wedge|lor|land)(?![a-zA-Z])|(?P<d>[,;])"
)
_EXCEPT = re.compile(
    r"(?:\\text\{)?\s?(?:x is )?(?:all|any|every) (?:real )?(?:numbers?|reals?|x)(?: x)?,? "
    r"(?:except|other than|but)(?: for)?(?: x)?\s?(?:=\s?)?\}?(?P<points>.+)"
)
_MINUS_SET = re.compile(r"(?<=\\mathbb\{R\})\s?-|(?<=[)\]}])\s?-(?=\s?\\\{)")
_MOST_WHOLE = 100
_REALS = frozenset(
    {"all real numbers", "all reals", "any real number", "every real number", "real numbers", "all real number",
     "the set of all real numbers", "x is any real number", "reals", "all real x", "all real values"}
)  # fmt: skip
_WORD_NAMES = frozenset({"e", "i", "d", "\\pi", "\\infty", "\\emptyset", "and", "or", "inf", "ln", "lnx", "sin", "cos"})


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


def one_group(text: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


def is_label(text: str) -> bool:
    """Whether text only names what an equation gives: x, f(x), S_{ABC}, \\angle ABC, (p,q,r)."""
    text = text[1:-1] if re.fullmatch(r"\{[A-Za-z]\}", text) else text
    return (
        0 < len(text) <= 60
        and text not in _WORD_NAMES - {"d"}
        and any(char.isalpha() for char in text)
        and _SOLVED.match(text) is None
        and _LABEL.fullmatch(text.replace(", ", ",")) is not None
    )


def is_variable(text: str) -> bool:
    """Whether text is one variable or one function of a variable: x, x_1, \\theta, f(x)."""
    return text not in ("e", "i") and _VARIABLE.fullmatch(text) is not None


def is_condition(read: Reading) -> bool:
    """Whether a part of a list says where the rest holds, and is no value: x > 0, n \\in \\mathbb{N}."""
    if isinstance(read, Equation) and read.label and len(read.sides) == 1:
        side = read.sides[0]
        if isinstance(side, Scalar | Opaque):
            return side.text.startswith("\\mathbb")
        return isinstance(side, Group) and (side.kind in BRACKETS or side.kind == "union")
    return (
        isinstance(read, Opaque)
        and re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", read.text) is not None
        and bool(INEQUALITY.search(read.text) or re.search(r"\\(?:ne|in|neq|forall)(?![a-zA-Z])", read.text))
    )


def number_set(words: str) -> Reading | None:
    """The set that words name, in lower case."""
    return _group([spans.everything()]) if words in _REALS else None


def about(exact: Reading, decimal: Reading) -> bool:
    """Whether two sides of \\approx are within a hundredth of each other, as far as both are plain values."""
    while isinstance(exact, Equation):
        exact = exact.sides[-1]
    while isinstance(decimal, Equation):
        decimal = decimal.sides[0]
    if not isinstance(exact, Scalar) or not isinstance(decimal, Scalar):
        return isinstance(decimal, Opaque) or (isinstance(exact, Scalar) == isinstance(decimal, Scalar))
    try:
        sides = parse(exact.text), parse(decimal.text)
        if symbols(sides[0]):
            return bool(symbols(sides[1]))
        shown = re.fullmatch(r"-?\d*\.(\d+)", decimal.text)
    except Undecided:
        return True
    try:
        if exact.percent != decimal.percent or numeric.within(*sides, 0.01):
            return True
        return shown is not None and _rounds(exact.text, decimal.text, len(shown[1]))
    except Undecided:
        return False


def _rounds(exact: str, decimal: str, decimals: int) -> bool:
    """Whether a decimal is within one unit of its last digit: 1/2187 \\approx 0.0005."""
    gap, unit = f"({exact})-({decimal})", f"10^{{-{decimals}}}"
    above, below = parse(f"{gap}-{unit}"), parse(f"-({gap})-{unit}")
    return numeric.less(above, parse("0")) and numeric.less(below, parse("0"))


def read_set(text: str, read: Read) -> Reading | None:
    """Set-builders, names of number sets, and what \\setminus, \\cap and \\cup make of finite sets and intervals."""
    if text == "\\mathbb{R}":
        return _group([spans.everything()])
    excepted = _EXCEPT.fullmatch(text)
    builder = _BUILDER.fullmatch(text)
    try:
        if excepted:
            return _group(_without_points([spans.everything()], excepted["points"]))
        if builder and one_group(text.replace("\\{", "{").replace("\\}", "}")):
            return _built(builder["name"].strip(), builder["condition"].strip(), read)
        if "\\setminus" in text or "\\cap" in text or _MINUS_SET.search(text):
            return _combined(text, read)
    except Undecided:
        return Opaque(text)
    return None


def read_inequalities(text: str, read: Read) -> Reading | None:
    """Inequalities in one variable as a named interval or union; None when the text has none, or more than that."""
    if not INEQUALITY.search(text) and not NOT_EQUAL.search(text):
        return None
    parts, joints = _joined(_EVERY.sub("", text))
    found = [_inequality(part) for part in parts]
    if len(found) > 8 or any(one is None for one in found):
        return None
    named = [one for one in found if one is not None]
    if len({name for name, _ in named}) != 1:
        return None
    try:
        result = named[0][1]
        for joint, (_, following) in zip(joints, named[1:], strict=True):
            overlap = spans.intersection(result, following)
            either = joint == "or" or (joint == "," and not overlap)
            result = spans.union([*result, *following]) if either else overlap
        return Equation(named[0][0], (_group(result),))
    except Undecided:
        return Opaque(text)


def spans_of(read: Reading) -> list[spans.Span] | None:
    """The numbers of an interval, a union or a finite set as sorted spans; None for anything else."""
    try:
        return spans.union(_spans(read))
    except Undecided:
        return None


def _joined(text: str) -> tuple[list[str], list[str]]:
    """The parts between connectives outside brackets, and the connectives: or, and, or a comma."""
    parts: list[str] = []
    joints: list[str] = []
    start = 0
    for match in _JOINT.finditer(text):
        before = text[: match.start()]
        if before.count("(") + before.count("[") + before.count("{") > before.count(")") + before.count(
            "]"
        ) + before.count("}"):
            continue
        piece = text[start : match.start()].strip()
        word = (
            match["a"]
            or match["b"]
            or {"vee": "or", "lor": "or", "wedge": "and", "land": "and"}.get(match["c"] or "", ",")
        )
        start = match.end()
        if not piece and joints:
            joints[-1] = word if joints[-1] == "," else joints[-1]
            continue
        parts.append(piece)
        joints.append(word)
    parts.append(text[start:].strip())
    return parts, joints


def _inequality(text: str) -> tuple[str, list[spans.Span]] | None:
    """(variable, spans) of a < x <= b, x > a, a > x, |x - a| < b or x \\ne a; None for anything else."""
    try:
        if NOT_EQUAL.search(text):
            name, points = NOT_EQUAL.split(text, maxsplit=1)
            if not is_variable(name.strip()):
                name, points = points, name
            if not is_variable(name.strip()):
                return None
            return compact(name), _without_points([spans.everything()], points)
        name, equals, value = text.partition("=")
        if equals and is_variable(name.strip()):
            return compact(name), [spans.point(value)]
        signs = [match.group().strip() for match in INEQUALITY.finditer(text)]
        sides = [side.strip() for side in INEQUALITY.split(text)]
        named = [is_variable(side) for side in sides]
        if len(sides) == 2 and not any(named):
            return _absolute(sides, signs[0])
        if len(sides) == 2 and named[0] != named[1]:
            value, sign = (sides[1], signs[0]) if named[0] else (sides[0], _FLIPPED[signs[0]])
            return compact(sides[named.index(True)]), [_ray(value, sign)]
        if len(sides) == 3 and named == [False, True, False]:
            first, second = _ray(sides[0], _FLIPPED[signs[0]]), _ray(sides[2], signs[1])
            if (signs[0] in ("<", "\\le")) != (signs[1] in ("<", "\\le")):
                return None
            return compact(sides[1]), spans.intersection([first], [second])
    except Undecided:
        return None
    return None


_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_ABSOLUTE = re.compile(r"\|\s?(?P<name>[^|+\-]+?)\s?(?:(?P<sign>[+-])\s?(?P<centre>[^|]+))?\|")


def _absolute(sides: list[str], sign: str) -> tuple[str, list[spans.Span]] | None:
    """|x - a| < b as the interval round a, |x - a| > b as what is left of the line."""
    match = _ABSOLUTE.fullmatch(sides[0])
    if match is None or not is_variable(match["name"].strip()):
        return None
    centre = match["centre"] or "0"
    centre = f"-({centre})" if match["sign"] == "+" else centre
    radius = sides[1]
    if symbols(parse(radius)) or not numeric.less(parse("0"), parse(radius)):
        raise Undecided("a radius that is not positive")
    low, high = f"({centre})-({radius})", f"({centre})+({radius})"
    closed = sign in ("\\le", "\\ge")
    inside = [spans.Span(spans.end(low, closed), spans.end(high, closed))]
    if sign in ("<", "\\le"):
        return compact(match["name"]), inside
    outside = [
        spans.Span(spans.everything().low, spans.end(low, closed)),
        spans.Span(spans.end(high, closed), spans.everything().high),
    ]
    return compact(match["name"]), outside


def _ray(value: str, sign: str) -> spans.Span:
    whole, side = spans.everything(), spans.end(value, sign in ("\\le", "\\ge"))
    return spans.Span(whole.low, side) if sign in ("<", "\\le") else spans.Span(side, whole.high)


def _built(name: str, condition: str, read: Read) -> Reading | None:
    variable, domain = (part.strip() for part in (*_ELEMENT.split(name, maxsplit=1), "")[:2])
    if domain not in ("", "\\mathbb{R}", "\\mathbb{Z}", "\\mathbb{N}") or not is_variable(variable):
        return None
    condition = re.sub(rf"^{re.escape(variable)}\s?\\in\s?\\mathbb\{{R\}}\s?,\s?", "", condition)
    found = read(condition)
    if not isinstance(found, Equation) or found.label != compact(variable) or len(found.sides) != 1:
        return None
    whole = domain in ("\\mathbb{Z}", "\\mathbb{N}")
    return _whole_numbers(found.sides[0], least=1 if domain == "\\mathbb{N}" else None) if whole else found.sides[0]


def _whole_numbers(read: Reading, *, least: int | None) -> Reading:
    """The whole numbers of an interval between rational ends, one by one. Raises Undecided.

    Args:
        read: the interval, or a union of several.
        least: numbers below it are in doubt, as 0 is among the natural numbers.
    """
    found: list[Reading] = []
    for span in spans.union(_spans(read)):
        low, high = exact.rational(span.low.node), exact.rational(span.high.node)
        first = math.ceil(low) + (low.denominator == 1 and not span.low.closed)
        last = math.floor(high) - (high.denominator == 1 and not span.high.closed)
        if last - first > _MOST_WHOLE or (least is not None and first < least):
            raise Undecided("too many numbers, or one that may not belong to them")
        found += [Scalar(str(number)) for number in range(first, last + 1)]
    return Group("set", tuple(found))


def _combined(text: str, read: Read) -> Reading | None:
    """A \\setminus B and A \\cap B, from left to right."""
    pieces = re.split(rf"(\\setminus|\\cap(?![a-zA-Z])|{_MINUS_SET.pattern})", text)
    named = _ELEMENT.split(pieces[0], maxsplit=1)
    if len(named) == 2 and is_variable(named[0].strip()):
        pieces[0] = named[1]
    readings = [read(piece.strip()) for piece in pieces[::2]]
    result = _spans(readings[0])
    for operator, reading in zip(pieces[1::2], readings[1:], strict=True):
        other = [spans.point(reading.text)] if isinstance(reading, Scalar) else _spans(reading)
        result = spans.intersection(result, other) if operator == "\\cap" else spans.without(result, other)
    return _group(result)


def _without_points(whole: list[spans.Span], points: str) -> list[spans.Span]:
    points = re.sub(r"\\text\{\s?(?:and|or)\s?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])", ",", points.strip(" .\\{}"))
    return spans.without(whole, [spans.point(p) for p in split_top(points, ",") if p])


def _spans(read: Reading) -> list[spans.Span]:
    if isinstance(read, Group) and read.kind in BRACKETS and len(read.items) == 2:
        low, high = read.items
        if isinstance(low, Scalar) and isinstance(high, Scalar) and not (low.unit or high.unit or low.percent):
            return [spans.Span(spans.end(low.text, read.kind[0] == "["), spans.end(high.text, read.kind[1] == "]"))]
    if isinstance(read, Group) and read.kind == "set":
        if not all(isinstance(item, Scalar) for item in read.items):
            raise Undecided("a set of other things than numbers")
        return [spans.point(item.text) for item in read.items if isinstance(item, Scalar)]
    if isinstance(read, Group) and read.kind == "union":
        return [span for item in read.items for span in _spans(item)]
    raise Undecided("not a set of numbers")


def _group(found: Sequence[spans.Span]) -> Group:
    """Spans as a reading: a set of points, an interval, or a union."""
    merged = spans.union(found)
    if all(span.low.node == span.high.node for span in merged):
        return Group("set", tuple(Scalar(span.low.text) for span in merged))
    parts = tuple(_interval(span) for span in merged)
    return parts[0] if len(parts) == 1 else Group("union", parts)


def _interval(span: spans.Span) -> Group:
    if span.low.node == span.high.node:
        return Group("set", (Scalar(span.low.text),))
    kind = ("[" if span.low.closed else "(") + ("]" if span.high.closed else ")")
    return Group(kind, (Scalar(span.low.text), Scalar(span.high.text)))
