"""Reading answers with parts: lists, tuples, intervals, sets, unions, matrices, equations, inequalities, words.

`read` turns text into a Reading, a small tree. Text that is none of these becomes Opaque.
"""

from __future__ import annotations

import re
from functools import lru_cache

from reval_core.verification import (
    alternatives,
    conditions,
    congruences,
    names,
    piecewise,
    relations,
    sequences,
    units,
)
from reval_core.verification.normalise import compact, normalise
from reval_core.verification.readings import (
    Equation,
    Group,
    Opaque,
    Reading,
    Refused,
    Scalar,
)
from reval_core.verification.relations import is_label, one_group, split_top
from reval_core.verification.words import OR, read_letters, read_words

_TEXT_LABEL = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z ()]){1,60}")
_CONNECTIVE = re.compile(
    r"\\text\{\s*(?:,?\s*(?:and|or|AND|OR)|,|;)\s*\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z])|(?<=\d)(?:and|or)(?=[a-z\d])"
    r"|\\(?:vee|wedge|lor|land)(?![a-zA-Z])|[和或]|(?<=[\w)}])\s?\\?&\s?(?=[\w(\\-])"
)
_ENVIRONMENT = re.compile(
    r"\\begin\{((?:p|b|B|v|V)?(?:small)?matrix|array)\}(?:\{[clr|*{}\d]*\})?((?:(?!\\(?:begin|end)\{).)*)\\end\{\1\}",
    re.DOTALL,
)
_ALIGNED = re.compile(r"\\begin\{(aligned|align\*?|gathered|gather\*?|split|equation\*?)\}(.*)\\end\{\1\}", re.DOTALL)
_SYSTEM = re.compile(r"(?:\\\{)?\s?\\begin\{cases\}((?:(?!\\(?:begin|end)\{).)*)\\end\{cases\}", re.DOTALL)
_ROW = re.compile(r"\\\\(?:\*)?\s?(?:\[[\d.]+\s?(?:pt|ex|em|mm|cm)\])?|\\cr(?![a-zA-Z])")
_CONTINUES = re.compile(r"=|\\(?:approx|Rightarrow|implies)(?![a-zA-Z])")
_LETTERS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
_UNREAD = ("\\ldots", "...", "\\to", "\\sum", "\\prod", "\\int", "\\lim")
_DENIAL = re.compile(
    r"\\(?:not|neg|lnot|nexists|cancel|xcancel|bcancel|sout)(?![a-zA-Z])|\\text\{\s?(?:not|never|isn't)\b|^(?:not|never)\s"
)
_HEADED = re.compile(
    r"^(?:\\text\{\s?([A-Za-z][A-Za-z ]{2,40}):\s?\}|([A-Za-z][a-z ]{2,30}):(?=\s)"
    r"|\\text\{\s?((?:[Tt]he |[Oo]ur |[Ff]inal )*(?:answer|result|value)) is:?\s?\})\s*(\S.*)$"
)
_ASKED_FOR = frozenset(
    re.findall(
        r"\S+",
        """
        answer answers result results solution solutions value values total sum product difference quotient remainder
        number count amount area perimeter circumference volume length width height depth distance radius diameter angle
        probability chance cost price profit time speed velocity rate ratio percentage percent mean median mode average
        range maximum minimum max min slope intercept coordinates point points vertex center centre roots zeros domain
        equation expression interval set conclusion choice option age weight mass score rest salary income
        """,
    )
)
"""Nouns of headings behind which an answer stands."""
_SAYS_OTHERWISE = frozenset(
    re.findall(
        r"\S+",
        """
        wrong false incorrect invalid rejected except excluding other another not no anything nothing but than more less
        least most fewer over under below above near nearly almost about approximate approximately half twice double
        triple square squared cube cubed base minus negative opposite inverse reciprocal without guess never
        """,
    )
)
"""Words with which a heading says that what follows is not the answer itself."""
_GOES_ON = re.compile(r"(-?\d{1,60}\.\d{6,2000})\s?\\ldots")
"""As many digits as a rounded value must show, and more to come."""
_TRANSPOSED = re.compile(r"^([(\[].*[)\]])\s?\^\s?\{?\s?(?:T|\\top|\\intercal)\s?\}?$")
_ELEMENT = re.compile(r"\\in(?![a-zA-Z])")
_CONDITION = re.compile(r"^(.*\S)\s*\(([^()]*(?:\\(?:in|ge|le|ne)(?![a-zA-Z])|<|>)[^()]*)\)$")
_MODULUS = re.compile(
    r"^(.*\S)\s*(?:\\pmod\s?(?:\{(\d+)\}|(\d+))|\(\s?\\?mod\s?\{?(\d+)\}?\s?\)|\\text\{ ?\(mod (\d+)\) ?\})$"
)
_RESIDUE = re.compile(r"(-?\d+)\s?\\?mod\s?(\d+)")
_NAMED_POINT = re.compile(r"(?:\\text\{\s?(?:[Pp]oint|the point)\s?\}\s?)?[A-Z]\s?(\([^()]*,[^()]*\))")


@lru_cache(maxsize=4096)
def _read_short(text: str) -> Reading:
    return _read(normalise(text), 0)


def read(text: str) -> Reading:
    """The reading of a gold or an answer (any spelling; it is normalised here)."""
    return _read_short(text) if len(text) <= 300 else _read(normalise(text), 0)


def _read(text: str, depth: int) -> Reading:
    if not text or depth > 6:
        return Opaque(text)
    headed = _HEADED.match(text)
    if headed and not _DENIAL.search(text) and _heads_an_answer((headed[1] or headed[2] or headed[3]).casefold()):
        return _read(headed[4].strip(), depth + 1)
    cases = piecewise.read(text, lambda part: _read(part, depth + 1)) or _read_system(text, depth)
    if cases is not None:
        return cases
    if _DENIAL.search(text):
        return Refused("it denies or strikes something out")
    aligned = _ALIGNED.fullmatch(text)
    if aligned:
        rows = [row.replace("&", "").strip() for row in _ROW.split(aligned[2])]
        return _read_rows([row for row in rows if row], depth) if any(rows) else Opaque(text)
    if text[0] == "{" and text[-1] == "}" and one_group(text) and "\\cup" in text:
        return _read(text[1:-1].strip(), depth + 1)
    if "\\approx" in text:
        return _read_approximately(text, depth)
    words = read_letters(text) or read_words(text)
    if words is not None:
        return words
    numbers = relations.read_set(text, lambda part: _read(part, depth + 1))
    if numbers is not None:
        return numbers
    if "\\Rightarrow" in text:
        last = _read(text.rpartition("\\Rightarrow")[2].strip(), depth + 1)
        return last if isinstance(last, Equation) and last.label else Opaque(text)
    going_on = _GOES_ON.fullmatch(text)
    if going_on:
        return Scalar(going_on[1], goes_on=True)
    if text == sequences.DOTS.text:
        return sequences.DOTS
    total = sequences.total(text)
    if total is not None:
        return Scalar(str(total))
    if any(mark in sequences.without_dots(text) for mark in _UNREAD) and "=" not in text:
        return Opaque(text)
    return _read_modular(text, depth) or _read_parts(text, depth)


def _read_system(text: str, depth: int) -> Reading | None:
    """The rows of a `cases` that give each of several names one value: x = 2, y = -1."""
    system = _SYSTEM.fullmatch(text)
    if system is None:
        return None
    rows = [row.replace("&", "").strip(" ,;.") for row in _ROW.split(system[1])]
    items = tuple(_read(row, depth + 1) for row in rows if row)
    names = {item.label for item in items if isinstance(item, Equation) and item.label}
    return Group("list", items) if len(names) == len(items) > 1 else None


def _heads_an_answer(heading: str) -> bool:
    """Whether a heading names what is asked for and takes nothing of it back."""
    words = set(heading.split())
    return bool(words & _ASKED_FOR) and not words & _SAYS_OTHERWISE


def _read_rows(rows: list[str], depth: int) -> Reading:
    """Aligned rows: one chain of equal values, a derivation whose last row counts, or several answers."""
    chains: list[str] = []
    for row in rows:
        if _CONTINUES.match(row) and chains:
            chains[-1] += f" {row}"
        else:
            chains.append(row)
    lefts = [split_top(chain, "=")[0] if "=" in chain else "" for chain in chains]
    last = set(_LETTERS.findall(lefts[-1]))
    if all(left and left != lefts[-1] and last & set(_LETTERS.findall(left)) for left in lefts[:-1]):
        return _read(chains[-1], depth + 1)
    if all(left == lefts[-1] for left in lefts):  # x = 6/2, x = 3
        return _read("=".join([lefts[-1], *(chain.partition("=")[2] for chain in chains)]), depth + 1)
    return _read(", ".join(chains), depth + 1)


def _read_approximately(text: str, depth: int) -> Reading:
    """x = 1/3 \\approx 0.33 is 1/3, if what stands behind is about that."""
    exact_part, _, rest = (part.strip() for part in text.partition("\\approx"))
    if not exact_part or is_label(exact_part):
        return _read(rest, depth + 1)
    exact_part = exact_part.removesuffix("\\text{ or }").strip()
    found = _read(exact_part, depth + 1)
    return (
        found if relations.about(found, _read(rest, depth + 1)) else Refused("what stands behind \\approx is far off")
    )


def _read_modular(text: str, depth: int) -> Reading | None:
    """Residues: 17 mod 5 is computed; values before a modulus are a congruence."""
    residue = _RESIDUE.fullmatch(text)
    if residue and len(residue[1]) < 30 and 0 < len(residue[2].lstrip("0")) < 30 and int(residue[1]) >= int(residue[2]):
        return Scalar(str(int(residue[1]) % int(residue[2])))
    match = _MODULUS.match(text)
    value, modulus = (match[1], next(g for g in match.groups()[1:] if g)) if match else (text, "")
    if residue:
        value, modulus = residue[1], residue[2]
    name, sign, residues = value.partition("\\equiv")
    label = compact(name) if sign and is_label(name.strip()) else ""
    if label:
        value = residues.strip()
    elif not modulus:
        return Opaque(text) if "=" not in text and ("\\equiv" in text or "\\mod" in text) else None
    found = _read(value, depth + 1)
    if not modulus:
        return found
    return congruences.made(label, found, modulus) or Opaque(text)


def _read_parts(text: str, depth: int) -> Reading:
    condition = _CONDITION.match(text)
    if condition and not is_label(text):
        text = f"{condition[1]}, {condition[2]}"
    conditional = conditions.split(text, lambda part: _read(part, depth + 1))
    if conditional is not None:
        return conditional
    related = relations.read_inequalities(text, lambda part: _read(part, depth + 1))
    if related is not None:
        return related
    either = False
    if "\\begin" not in text and _CONNECTIVE.search(text):
        either = OR.search(text) is not None
        text = re.sub(r"\s*,(?:\s*,)+\s*", ", ", _CONNECTIVE.sub(",", text)).strip(" ,")
    if not text:
        return Opaque(text)
    if "\\cup" in text and len(split_top(text, "=")) == 1:
        parts = text.split("\\cup")
        return Group("union", tuple(_read(part.strip(), depth + 1) for part in parts))
    items = [part for part in split_top(text, ";") if part]
    if len(items) == 1:
        items = [part for part in split_top(text, ",") if part]
    if len(items) > 1:
        found = _read_list(items, depth)
        return alternatives.joined_by_or(found) if either and isinstance(found, Group) else found
    return _read_relation(text, depth) or _read_brackets(text, depth) or _read_scalar(text)


def _read_list(items: list[str], depth: int) -> Reading:
    """Parts separated by commas; `n = 1, 2, 3` is a named list, not an equation and two numbers."""
    sides = split_top(items[0], "=")
    if len(sides) == 2 and is_label(sides[0]) and not any("=" in item for item in items[1:]):
        rest = [_read(item, depth + 1) for item in items[1:]]
        if not any(relations.is_condition(item) for item in rest):
            whole = _read(", ".join([sides[1], *items[1:]]), depth + 1)
            return Equation(compact(sides[0]), (whole,))
    readings = tuple(_read(item, depth + 1) for item in items)
    return Group("list", tuple(_spread(list(readings))))


def _read_relation(text: str, depth: int) -> Reading | None:
    if _ELEMENT.search(text):
        name, rest = _ELEMENT.split(text, maxsplit=1)
        name = name.strip()
        return Equation(compact(name), (_read(rest.strip(), depth + 1),)) if is_label(name) else Opaque(text)
    if relations.INEQUALITY.search(text) or relations.NOT_EQUAL.search(text):
        return Opaque(text)
    sides = split_top(text, "=")
    if len(sides) == 1:
        return None
    if not all(sides):
        return Opaque(text)
    if len(sides) == 2 and is_label(sides[1]) and not is_label(sides[0]):
        sides.reverse()
    label = ""
    if is_label(sides[0]) or (_TEXT_LABEL.fullmatch(sides[0]) and names.is_phrase(sides[0])):
        label, sides = compact(sides[0]), sides[1:]
        while len(sides) > 1 and is_label(sides[0]):
            if re.search(rf"(?<![a-zA-Z]){re.escape(sides[0])}(?![a-zA-Z])", sides[-1]):
                return Refused("it names a value by itself")
            sides = sides[1:]
    return Equation(label, tuple(_read(side, depth + 1) for side in sides))


def _read_brackets(text: str, depth: int) -> Reading | None:
    environment = _ENVIRONMENT.fullmatch(text)
    if environment:
        return Opaque(text) if "vmatrix" in environment[1].casefold() else _read_matrix(environment[2], depth)
    point = _NAMED_POINT.fullmatch(text) or _TRANSPOSED.fullmatch(text)
    if point:
        text = point[1]
    if text.startswith("\\{") and text.endswith("\\}") and one_group(text.replace("\\{", "{").replace("\\}", "}")):
        inner = text[2:-2].strip()
        parts = [part for part in split_top(inner, ",;") if part]
        return Group("set", tuple(_spread([_read(part, depth + 1) for part in parts])))
    if text[0] in "([{" and text[-1] in ")]}" and one_group(text):
        return _read_group(text, depth)
    if text[0] in "[]" and text[-1] in "[]" and "[" not in text[1:-1] and "]" not in text[1:-1]:
        return _read_reversed(text, depth)
    if text[0] == "-" and text[-1] in ")]}":
        return _read_negated(text, depth)
    ratio = split_top(text, ":")
    if len(ratio) > 1 and all(ratio):
        return Group("ratio", tuple(_read_scalar(part) for part in ratio))
    return None


def _read_group(text: str, depth: int) -> Reading:
    inner = text[1:-1].strip()
    parts = split_top(inner, ",;")
    if len(parts) == 1:
        found = _read(inner, depth + 1)
        bare = text[0] + text[-1] in ("()", "{}") or (isinstance(found, Group) and found.kind == "matrix")
        return found if bare else Group("singleton", (found,))
    if text[0] == "{":
        return Group("list", tuple(_read(part, depth + 1) for part in parts if part))
    if not all(parts):
        return Group("singleton", (Opaque(inner),))
    readings = tuple(_read(part, depth + 1) for part in parts)
    rows = [r for r in readings if isinstance(r, Group) and r.kind in ("[]", "()")]
    if text[0] == "[" and len(rows) == len(readings) and len({len(row.items) for row in rows}) == 1 and len(rows) > 1:
        return Group("matrix", tuple(Group("row", row.items) for row in rows))
    return Group(text[0] + text[-1], readings)


def _read_reversed(text: str, depth: int) -> Reading | None:
    """]a, b[ as the open interval that it is where brackets are written so."""
    parts = split_top(text[1:-1], ",;")
    if len(parts) != 2 or not all(parts):
        return None
    kind = ("(" if text[0] == "]" else "[") + (")" if text[-1] == "[" else "]")
    return Group(kind, tuple(_read(part, depth + 1) for part in parts))


def _read_matrix(body: str, depth: int) -> Reading:
    rows = [row for row in _ROW.split(body.replace("\\hline", " ")) if row.strip()]
    return Group(
        "matrix", tuple(Group("row", tuple(_read(c.strip(), depth + 1) for c in row.split("&"))) for row in rows)
    )


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
    """Both values of a plus-minus as parts of the list or set that it stands in."""
    spread: list[Reading] = []
    for reading in readings:
        inner = reading.sides[-1] if isinstance(reading, Equation) and len(reading.sides) == 1 else reading
        if isinstance(inner, Group) and inner.kind == "plusminus":
            label = reading.label if isinstance(reading, Equation) else ""
            spread.extend(Equation(label, (item,)) if label else item for item in inner.items)
        else:
            spread.append(reading)
    return spread


def _read_scalar(text: str) -> Reading:
    if text.count("\\pm") == 1:
        before, _, after = text.partition("\\pm")
        both = tuple(_read_scalar(f"{before}{sign}{after}".strip()) for sign in "+-")
        return Group("plusminus", both)
    if text == "\\emptyset":
        return Group("set", ())
    value, unit = units.split(text.replace("\\mid", "|"))
    percent = value.endswith("%")
    value = value.removesuffix("%").strip()
    if not value or "\\text" in value or "\\pm" in value or value.endswith("%"):
        return Opaque(text)
    return Scalar(value, percent, unit)
